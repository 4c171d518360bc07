"""Makes a small run of each stage, and what the code that made it gives from it.

Run it in a checkout of the commit whose runs are to be kept; it uses the command line and the
public names alone. tests/test_compatibility.py reads the results with today's code.

    python OUT_OF/make_runs.py OUTPUT
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

# The runs are made on one device: fewer pieces in a checkpoint. They go on as the suite runs.
ONE = "--xla_backend_optimization_level=0"
EIGHT = f"--xla_force_host_platform_device_count=8 {ONE}"
os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": EIGHT}
sys.path.insert(0, os.getcwd())

SMALL = {
    "optim.learning_rate": 0.01,
    "ema.decay": 0.5,
    "optim.max_steps": 4,
    "optim.warmup_steps": 2,
    "optim.decay_end_step": 8,
    "optim.spike_factor": 3.0,
    "checkpoint.save_every": 4,
    "checkpoint.keep_last": 1,
    "checkpoint.best_metric": "val_ema/loss",
    "metrics.log_every": 1,
    "metrics.validate_every": 2,
    "encoder.hidden_size": 8,
    "decoder.hidden_size": 8,
    "decoder.intermediate_size": 16,
}
STAGE_2 = SMALL | {
    "ddt.hidden_size": (8, 16),
    "flow.shift": 1.5,
    "sample.num_samples": 8,
    "sample.batch_size": 8,
    "sample.cfg_scale": 1.5,
}
STAGE_1 = SMALL | {
    "objective": "reconstruction",
    "gan.weight": 0.75,
    "gan.discriminator_start": 1,
    "gan.start": 2,
    "gan.warmup_steps": 1,
    "gan.decay_end_step": 8,
    "discriminator.features": "encoder",
    "discriminator.layers": (0, 1),
    "discriminator.kernel_size": 3,
}


def command(workdir: Path, settings: dict, mode: str, devices: str) -> None:
    """Runs the command line in the current directory's checkout."""
    changes = [f"--config.{name}={value}" for name, value in settings.items()]
    words = [f"--workdir={workdir}", f"--mode={mode}", *changes]
    subprocess.run(
        [sys.executable, "-m", "rae_dit.main", "--config=configs/dit_dummy.py", *words],
        env=os.environ | {"XLA_FLAGS": devices},
        check=True,
    )


def make_run(workdir: Path, expected: Path, settings: dict) -> None:
    """Takes four steps, which are kept, and four more in a copy, of which the metrics are."""
    command(workdir, settings, "train", ONE)
    shutil.rmtree(workdir / "tensorboard")
    (workdir / ".lock").unlink()
    with tempfile.TemporaryDirectory() as directory:
        longer = shutil.copytree(workdir, Path(directory) / "longer")
        command(longer, settings | {"optim.max_steps": 8}, "train", EIGHT)
        shutil.copy(longer / "metrics.jsonl", expected)


def make_samples(workdir: Path, settings: dict) -> dict:
    """Returns the images of --mode=sample and their labels."""
    with tempfile.TemporaryDirectory() as directory:
        command(workdir, settings | {"sample.output_dir": directory}, "sample", EIGHT)
        with np.load(Path(directory) / "samples.npz") as file:
            return {"samples": file["arr_0"], "labels": file["arr_1"]}


def public_outputs(stage2: Path, stage1: Path) -> dict:
    """Returns what a notebook gets from the two runs, and the inputs."""
    import jax

    import rae_dit

    random = np.random.default_rng(0)
    ddt, rae = rae_dit.load_ddt(stage2), rae_dit.load_rae(stage1)
    x = random.standard_normal((4, 4, 4, 8)).astype(np.float32)
    t, y = np.float32([0, 0.3, 0.8, 1]), np.int32([0, 1, 2, 4])
    classes = np.int32([0, 1, 2, 3])
    image = random.random((2, 8, 8, 3)).astype(np.float32)
    latent = jax.jit(rae.encode)(image)
    return {
        **{"x": x, "t": t, "y": y, "classes": classes, "image": image},
        "velocity": jax.jit(ddt.__call__)(x, t, y),
        "sampled_latents": rae_dit.sample_latents(ddt, x, classes, steps=5, cfg_scale=1.5),
        "latent": latent,
        "reconstruction": jax.jit(rae.decode)(latent),
    }


def main() -> None:
    """Makes both runs, packs them, and keeps what they give."""
    output = Path(sys.argv[1]).absolute()
    output.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as directory:
        runs = {"stage2": STAGE_2, "stage1": STAGE_1}
        workdirs = {name: Path(directory) / name for name in runs}
        for name, settings in runs.items():
            make_run(workdirs[name], output / f"{name}_metrics.jsonl", settings)
            with tarfile.open(output / f"{name}.tar.xz", "w:xz", preset=9) as archive:
                archive.add(workdirs[name], name)
        values = make_samples(workdirs["stage2"], STAGE_2) | public_outputs(**workdirs)
    np.savez_compressed(output / "outputs.npz", **{k: np.asarray(v) for k, v in values.items()})


if __name__ == "__main__":
    main()

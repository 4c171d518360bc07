"""--mode=probe: trains a linear layer on an encoder's tokens and evaluates it on held-out images.

Training is that of --mode=train, with its checkpoints and metrics: the same command continues.
With `probe.freeze_encoder` the encoder is not part of the state.
"""

import logging
from pathlib import Path
from typing import Any

import jax

from rae_dit.checkpoint.manager import restore_state
from rae_dit.config import Config
from rae_dit.config.check import invalid_value
from rae_dit.modes.train import train
from rae_dit.multihost import StopAtOnce
from rae_dit.setup import data, models
from rae_dit.setup.objectives import make_task
from rae_dit.storage.files import write_json
from rae_dit.training.hooks import held_out_means
from rae_dit.training.program import build_program
from rae_dit.training.sharding import make_mesh

log = logging.getLogger(__name__)


def probe(config: Config, workdir: Path) -> None:
    """Writes probe.json into the workdir: accuracies over all held-out images.

    Raises:
        ConfigError: another objective, or no held-out images.
    """
    if config.trained_network not in ("head", "encoder"):
        expected = "'classification' for --mode=probe, as in configs/probe_dino.py"
        raise invalid_value("objective", config.objective, expected)
    source = data.held_out(config)
    config = train(config, workdir)  # in steps
    last_step = config.optim.max_steps
    mesh = make_mesh(config.sharding.fsdp)
    task = make_task(config)
    program = build_program(task, mesh, seed=config.seed)
    state, _ = restore_state(workdir, program.abstract)
    if int(state.step) < last_step:
        log.info("stopped at step %d of %d: nothing to evaluate yet", int(state.step), last_step)
        return
    report: dict[str, Any] = {
        "freeze_encoder": config.probe.freeze_encoder,
        "step": last_step,
    }
    with StopAtOnce(), jax.default_matmul_precision(models.matmul_precision(config)):
        frozen = task.load_frozen(mesh)
        means, images = held_out_means(
            program.validate,
            {"parameters": state.params, "ema": state.ema},
            frozen,
            source,
            mesh,
            batch_size=config.data.batch_size,
            seed=config.seed,
            limit=None,
            num_workers=config.data.num_workers,
        )
        report |= means | {"images": images}
    if jax.process_index() == 0:
        write_json(workdir / "probe.json", report)
    log.info("probe: %s", report)

"""The recorded training of bytetriper/RAE: a recording's settings -> our side of its replay.

golden/README.md says what golden/trajectories holds.
"""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict

from rae_dit.config import Config
from rae_dit.models.discriminator import Heads
from rae_dit.objectives.base import Tree
from rae_dit.setup import gan, models
from rae_dit.setup.objectives import make_task
from rae_dit.training.gan_updates import create_discriminator
from rae_dit.training.sharding import make_mesh
from rae_dit.training.state import DiscriminatorState
from rae_dit.weights.mapping import export_tensors
from rae_dit.weights.official import export_ddt, export_decoder
from support.golden_files import GOLDEN, channels_last
from support.reference_heads import heads_entries, read_heads
from support.replay import Named, Recording, Start, read_recording
from support.rule_weights import save_lpips
from support.small_run import small_config

TRAJECTORIES = GOLDEN / "trajectories"
NAMES = (
    "trajectory_stage2",
    "trajectory_stage2_constants_frozen",
    "trajectory_stage1",
    "trajectory_stage1_smooth",
    "trajectory_stage1_smooth_constants_frozen_one_iteration",
)


def read(name: str, directory: Path = TRAJECTORIES) -> Recording:
    """Reads a recording, without the EMA of what it holds frozen.

    That average moves by rounding in the reference, and stays here (docs/differences.md).
    """
    recording = read_recording(directory, name)
    if recording.settings["constants_trained"]:
        return recording
    constants = tuple(recording.settings["constants"])
    changes = {
        kind: {
            parameter: value
            for parameter, value in change.items()
            if not (kind.startswith("ema") and parameter.endswith(constants))
        }
        for kind, change in recording.changes.items()
    }
    return recording._replace(changes=changes)


def start(recording: Recording) -> Start:
    """Builds our side of a recording of either stage."""
    return start_stage2(recording) if "model" in recording.settings else start_stage1(recording)


def start_stage2(recording: Recording) -> Start:
    """Builds stage 2: the DDT of `model_file`, on recorded latents, noise, times and labels."""
    task = make_task(stage2_config(recording.settings))
    mesh = make_mesh(1, jax.devices()[:1])
    draws = recording.arrays
    images = {name: images_last(draws[name]) for name in ("latent", "noise")}
    graph = nnx.graphdef(task.module)
    return Start(
        task=task,
        params=task.load_initial(mesh),
        frozen={},  # the latents are there
        inputs=by_step(images | {name: draws[name] for name in ("t", "label")}),
        names=lambda params, discriminator: export_ddt(nnx.merge(graph, params)),
    )


def stage2_config(settings: Mapping[str, Any]) -> Config:
    """Returns the config of a stage-2 recording."""
    model = settings["model"]
    ddt = {
        "pretrained": str(GOLDEN / settings["model_file"]),
        "class_dropout": model["class_dropout_prob"],
        "train_constants": settings["constants_trained"],
    }
    ddt |= {name: tuple(model[name]) for name in ("hidden_size", "depth", "num_heads")}
    same = ("patch_size", "mlp_ratio", "use_qknorm", "use_swiglu", "use_rope", "use_rmsnorm")
    ddt |= {name: model[name] for name in (*same, "use_pos_embed")}
    return small_config(
        **{f"ddt.{name}": value for name, value in ddt.items()},
        **optimizer_fields(settings),
        **{
            "encoder.input_size": 2 * model["input_size"],  # of 2-pixel patches
            "encoder.hidden_size": model["in_channels"],
            "data.num_classes": model["num_classes"],
            "data.batch_size": settings["batch"],
            "flow.shift": settings["time_shift"],
        },
    )


def start_stage1(recording: Recording) -> Start:
    """Builds stage 1: decoder and heads, on recorded images, tokens and fakes.

    Recorded fakes, because a rounding error of the decoder's image flips some of its 8-bit values.
    """
    settings, draws = recording.settings, recording.arrays
    mesh = make_mesh(1, jax.devices()[:1])
    with tempfile.TemporaryDirectory() as directory:
        config = stage1_config(settings, Path(directory))
        task = make_task(config)
        frozen, params = task.load_frozen(mesh), task.load_initial(mesh)
    ours = gan.make_discriminator(config)
    recorded = ours._replace(fakes=lambda decoder, frozen, inputs: inputs["fake"])
    heads = read_heads(
        GOLDEN / settings["heads"],
        models.abstract(gan.make_heads, config),
        kernel_size=config.discriminator.kernel_size,
    )
    images = {name: images_last(draws[name]) / np.float32(255) for name in ("image", "fake")}
    tokens = {name: draws[name] for name in ("tokens", "clean_tokens")}
    graph = nnx.graphdef(task.module)
    return Start(
        task=dataclasses.replace(task, step=functools.partial(task.step, gan=recorded)),
        params=params,
        frozen=frozen,
        inputs=by_step(images | tokens),
        names=functools.partial(stage1_names, graph, heads),
        discriminator=create_discriminator(heads, ours),
    )


def stage1_config(settings: Mapping[str, Any], directory: Path) -> Config:
    """Returns the config of a stage-1 recording; LPIPS goes into files in `directory`."""
    vgg, linear = save_lpips(directory)
    encoder = json.loads((GOLDEN / settings["encoder"] / "config.json").read_text())
    decoder = json.loads((GOLDEN / settings["decoder"] / "config.json").read_text())
    judge = json.loads((GOLDEN / settings["disc"]).read_text())
    recipe = judge["recipe"]
    grid = json.loads((GOLDEN / "rae_dinov2.json").read_text())["encoder_input_size"]
    grid //= encoder["patch_size"]
    per_update = settings["power_iterations_per_update"] == 1
    return small_config(
        **optimizer_fields(settings),
        **{
            "objective": "reconstruction",
            "data.batch_size": settings["batch"],
            "data.image_size": grid * decoder["patch_size"],
            "encoder.pretrained": str(GOLDEN / settings["encoder"]),
            "encoder.input_size": grid * encoder["patch_size"],
            "encoder.patch_size": encoder["patch_size"],
            "encoder.position_grid": encoder["image_size"] // encoder["patch_size"],
            "encoder.hidden_size": encoder["hidden_size"],
            "encoder.depth": encoder["num_hidden_layers"],
            "encoder.num_heads": encoder["num_attention_heads"],
            "encoder.num_registers": encoder["num_register_tokens"],
            "decoder.pretrained": str(GOLDEN / settings["decoder"]),
            "decoder.train_constants": settings["constants_trained"],
            "decoder.patch_size": decoder["patch_size"],
            "decoder.hidden_size": decoder["decoder_hidden_size"],
            "decoder.depth": decoder["decoder_num_hidden_layers"],
            "decoder.num_heads": decoder["decoder_num_attention_heads"],
            "decoder.intermediate_size": decoder["decoder_intermediate_size"],
            "perceptual.weight": settings["perceptual_weight"],
            "perceptual.vgg": str(vgg),
            "perceptual.linear": str(linear),
            "gan.weight": settings["gan_weight"],
            "gan.start": 0,
            "gan.discriminator_start": 0,
            "gan.augment_translation": 0.0,
            "gan.augment_colour": False,
            "gan.power_iteration": "per_update" if per_update else "per_pass",
            **optimizer_fields(settings, section="gan", prefix="discriminator_"),
            "discriminator.pretrained": str(GOLDEN / settings["dino"]),
            "discriminator.patch_size": recipe["patch_size"],
            "discriminator.hidden_size": recipe["embed_dim"],
            "discriminator.depth": recipe["depth"],
            "discriminator.num_heads": recipe["num_heads"],
            "discriminator.layers": (recipe["depth"] - 1, *recipe["key_depths"]),
            "discriminator.kernel_size": judge["kernel_size"],
        },
    )


def stage1_names(
    graph: nnx.GraphDef, heads: Heads, params: Tree, discriminator: DiscriminatorState
) -> Named:
    """Returns decoder, heads and their vectors by the recording's names."""
    size = heads.heads.mix.kernel[...].shape[1]
    leaves = flatten_dict(discriminator.params, sep=".")
    leaves |= flatten_dict(discriminator.vectors, sep=".")
    judged = export_tensors(heads_entries(heads.count, size), leaves)
    decoder = export_decoder(nnx.merge(graph, params))
    return {f"decoder/{name}": value for name, value in decoder.items()} | {
        f"heads/{name}": value for name, value in judged.items()
    }


def optimizer_fields(
    settings: Mapping[str, Any], *, section: str = "optim", prefix: str = ""
) -> dict[str, Any]:
    """Returns the fields of `optim` or `gan` for a recorded optimizer and its schedule."""
    optimizer, schedule = settings[f"{prefix}optimizer"], settings[f"{prefix}scheduler"]
    fields = {
        "learning_rate": schedule["base_lr"],
        "final_learning_rate": schedule["final_lr"],
        "warmup_steps": schedule["warmup_steps"],
        "decay_end_step": schedule["decay_end_steps"],
        "beta1": optimizer["betas"][0],
        "beta2": optimizer["betas"][1],
        "epsilon": optimizer["eps"],
        "weight_decay": optimizer["weight_decay"],
    }
    if section == "optim":
        fields |= {
            "decay": schedule["type"],
            "warmup_from_zero": schedule["warmup_from_zero"],
            "clip_norm": settings["clip_grad"],
            "max_steps": settings["steps"],
        }
    found = {f"{section}.{name}": value for name, value in fields.items()}
    return found if section == "gan" else found | {"ema.decay": settings["ema_decay"]}


def images_last(images: np.ndarray) -> np.ndarray:
    """[steps, B, C, H, W] -> [steps, B, H, W, C]."""
    return np.stack([channels_last(batch) for batch in images])


def by_step(draws: Named) -> list[Tree]:
    """Cuts arrays along their axis of steps."""
    return [dict(zip(draws, values, strict=True)) for values in zip(*draws.values(), strict=True)]

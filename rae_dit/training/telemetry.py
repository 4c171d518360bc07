"""What happens inside the model on a batch, computed beside the step and only when it is logged."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from rae_dit.diffusion import flow
from rae_dit.models.activation_stats import observe_ddt
from rae_dit.objectives.base import Objective, Tree


def flow_telemetry(
    params: Tree,
    frozen: Tree,
    batch: Tree,
    key: Key[Array, ""],
    *,
    objective: Objective,
    ddt_graph: nnx.GraphDef,
) -> dict[str, Float[Array, ""]]:
    """Sizes inside a DiT^DH on a batch's noised latents (models/activation_stats, (1) and (2)).

    Args:
        params: of the DiT^DH.
        frozen: as in the step.
        batch: as in the step.
        key: of times and noise.
        objective: stage 2's, which draws them.
        ddt_graph: the structure of `params`.

    Returns:
        float32 scalars: "train/attention_logit_max" over all blocks, and for each block such as
        backbone_03 "rms/..." of the residual stream after it and its "attention_logit/...".
    """
    example = objective.draw(frozen, batch, key)
    x_t = flow.interpolate(example["latent"], example["noise"], example["t"])
    seen = observe_ddt(nnx.merge(ddt_graph, params), x_t, example["t"], example["label"])
    logits = jnp.concatenate([stack.logit for stack in seen.values()])
    values = {"train/attention_logit_max": jnp.max(logits)}
    for stack, observation in seen.items():
        for block, (rms, logit) in enumerate(zip(*observation, strict=True)):
            values[f"rms/{stack}_{block:02d}"] = rms
            values[f"attention_logit/{stack}_{block:02d}"] = logit
    return values

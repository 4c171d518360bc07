r"""Stage 2: flow matching on RAE latents.

With a latent x_0, noise ~ N(0, 1) and a time t of `diffusion/flow.sample_time`,

    x_t = (1 - t) x_0 + t noise,          L = mean |ddt(x_t, t, label) - (noise - x_0)|^2        (1)

where a label becomes the null label with the chance `class_dropout`, which is what classifier-free
guidance needs. `params` are the DDT's; `frozen` is an RAE with its encoder and latent statistics.

A network that predicts data has the target of `diffusion/prediction`, (x_t - x_0) / max(t, 0.05),
which is the same one above t = 0.05. A network with a second head has the loss

    L = L_full + base_weight L_base                                                             (2)

of both heads on one noise and time. Each is logged, and their gap, L_base - L_full, without which
internal guidance has no direction.

Source: RAE paper, section 4; bytetriper/RAE `stage2/transport`; SEMANTICS 4.6. RAEV2.md 4.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from rae_dit.diffusion import flow
from rae_dit.diffusion.prediction import velocity_of
from rae_dit.models.activation_stats import activation_stats
from rae_dit.models.latent_storage import unpack
from rae_dit.objectives.base import Objective, PerSample, Tree


def flow_matching(
    ddt_graph: nnx.GraphDef,
    rae_graph: nnx.GraphDef | None,
    *,
    null_label: int,
    time_distribution: str,
    shift: float,
    class_dropout: float,
    prediction: str = "v",
    base_weight: float | None = None,
) -> Objective:
    """Makes the objective of equation (1), or (2).

    Args:
        ddt_graph: structure of the trained DDT.
        rae_graph: structure of the frozen RAE, which needs no decoder; None for batches of cached
            latents, as `latent_storage.pack` makes them, in place of images.
        null_label: label that means "no class".
        time_distribution: of t before the shift, see `diffusion/flow.sample_time`.
        shift: of times towards noise.
        class_dropout: chance that a label becomes the null label.
        prediction: what the network's outputs are, "v" or "x".
        base_weight: of the second head; None for a network with one head.
    """

    def sample_inputs(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        time_key, noise_key, label_key = jax.random.split(key, 3)
        if rae_graph is None:
            latent = unpack(batch)
        else:
            latent = nnx.merge(rae_graph, frozen).encode(batch["image"])
        batch_size = latent.shape[0]
        dropped = jax.random.bernoulli(label_key, class_dropout, (batch_size,))
        return {
            "latent": latent,
            "t": flow.sample_time(
                time_key, batch_size, distribution=time_distribution, shift=shift
            ),
            "noise": jax.random.normal(noise_key, latent.shape),
            "label": jnp.where(dropped, null_label, batch["label"]),
        }

    def loss(params: Tree, frozen: Tree, inputs: Tree) -> PerSample:
        latent, noise, t = inputs["latent"], inputs["noise"], inputs["t"]
        x_t = flow.interpolate(latent, noise, t)
        if prediction == "x":
            target = velocity_of(latent, x_t, t)
        else:
            target = flow.velocity_target(latent, noise)
        ddt = nnx.merge(ddt_graph, params)
        if base_weight is None:
            return flow.squared_error(ddt(x_t, t, inputs["label"]), target), {}
        full, base = (
            flow.squared_error(velocity, target) for velocity in ddt.heads(x_t, t, inputs["label"])
        )
        seen = {"loss_full": full, "loss_base": base, "loss_gap": base - full}
        return full + base_weight * base, seen

    return Objective(sample_inputs, loss)


def noised(inputs: Tree) -> tuple[Array, ...]:
    """Returns the DDT's arguments: noised latents, times and labels."""
    x_t = flow.interpolate(inputs["latent"], inputs["noise"], inputs["t"])
    return x_t, inputs["t"], inputs["label"]


def telemetry(
    params: Tree,
    frozen: Tree,
    batch: Tree,
    key: Key[Array, ""],
    *,
    objective: Objective,
    ddt_graph: nnx.GraphDef,
    arguments: Callable[[Tree], tuple[Array, ...]] = noised,
) -> dict[str, Float[Array, ""]]:
    """Measures activations of a DDT on a batch's noised latents (models/activation_stats).

    Args:
        params: of the DDT.
        frozen: as in the step.
        batch: as in the step.
        key: of times and noise.
        objective: whose `sample_inputs` samples them.
        ddt_graph: the structure of `params`.
        arguments: of the DDT, from the objective's inputs.

    Returns:
        float32 scalars: "train/attention_logit_max" over all blocks, and for each block such as
        backbone_03 "rms/..." of the residual stream after it and its "attention_logit/...".
    """
    inputs = objective.sample_inputs(frozen, batch, key)
    seen = activation_stats(nnx.merge(ddt_graph, params), *arguments(inputs))
    logits = jnp.concatenate([stack.logit for stack in seen.values()])
    values = {"train/attention_logit_max": jnp.max(logits)}
    for stack, observation in seen.items():
        for block, (rms, logit) in enumerate(zip(*observation, strict=True)):
            values[f"rms/{stack}_{block:02d}"] = rms
            values[f"attention_logit/{stack}_{block:02d}"] = logit
    return values

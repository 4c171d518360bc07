r"""Few steps, by MeanFlow's identity: distillation of a teacher, or fine-tuning on data.

A network u of two times is regressed to the right-hand side of the identity (3) of
`diffusion/mean_flow`, held constant:

    z = (1 - t) x + t noise,        target = v - ramp (t - r) du/dt                            (1)
    v = teacher(z, t, label)  (distillation),        v = noise - x  (fine-tuning)              (2)
    error = mean (u - target)^2 of each row,    gradient that of  error / (error + c)^p        (3)

with the last divisor held constant, too. At p = 1 every row counts alike whatever its error, and
the weighted loss is 1 and tells nothing; so the *value* of the loss is the error, which is what the
log, validation and the guard against spikes see, while its *gradient* is the weighted one.

One row of every `interval_every` has an interval, r < t, and the others r = t, where the target is
v. Only the former need du/dt: one pass in forward mode on a fixed part of the batch, by a second
graph of the same parameters, because fused attention kernels have no forward mode. Places are
strided, so that every device and every micro-batch has its share. `ramp` grows from 0 to 1 over the
first steps, or is 1.

Labels are dropped once, for teacher and student alike.

Source: MeanFlow (arXiv 2505.13447), MF-RAE (arXiv 2511.13019); FEWSTEP.md 1, 3 to 5 and 11.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from rae_dit.diffusion import flow
from rae_dit.diffusion.mean_flow import order_times, time_derivative
from rae_dit.models.latent_storage import unpack
from rae_dit.objectives.base import Objective, PerSample, Tree
from rae_dit.objectives.teacher import Teacher


def mean_flow(
    ddt_graph: nnx.GraphDef,
    derivative_graph: nnx.GraphDef,
    rae_graph: nnx.GraphDef | None,
    teacher: Teacher | None,
    *,
    null_label: int,
    time_distribution: str,
    shift: float,
    class_dropout: float,
    interval_every: int = 4,
    adaptive_power: float = 1.0,
    adaptive_constant: float = 1e-3,
    tangent_warmup_steps: int = 0,
    micro_batches: int = 1,
) -> Objective:
    """Makes the objective of equations (1) to (3).

    Args:
        ddt_graph: structure of the trained DDT, of two times.
        derivative_graph: the same with attention "xla" and without rematerialization.
        rae_graph: structure of the frozen RAE, `frozen["rae"]`, which needs no decoder; None for
            batches of cached latents.
        teacher: gives v from `frozen`; None for fine-tuning.
        null_label: label that means "no class".
        time_distribution: of both times before the shift, see `diffusion/flow.sample_time`.
        shift: of times towards noise.
        class_dropout: chance that a label becomes the null label.
        interval_every: one row in so many has r < t.
        adaptive_power: p of (3).
        adaptive_constant: c of (3).
        tangent_warmup_steps: over which `ramp` grows, by `batch["step"]`; 0 for none.
        micro_batches: parts that the inputs are cut into before `loss`, rows i, i + parts, ...
    """

    def sample_inputs(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        first_key, second_key, noise_key, label_key = jax.random.split(key, 4)
        if rae_graph is None:
            latent = unpack(batch)
        else:
            latent = nnx.merge(rae_graph, frozen["rae"]).encode(batch["image"])
        rows = latent.shape[0]
        first, second = (
            flow.sample_time(key, rows, distribution=time_distribution, shift=shift)
            for key in (first_key, second_key)
        )
        is_interval = jnp.arange(rows) // micro_batches % interval_every == 0
        t, r = order_times(first, second, is_interval)
        noise = jax.random.normal(noise_key, latent.shape)
        dropped = jax.random.bernoulli(label_key, class_dropout, (rows,))
        label = jnp.where(dropped, null_label, batch["label"])
        z = flow.interpolate(latent, noise, t)
        velocity = flow.velocity_target(latent, noise)
        if teacher is not None:
            velocity = teacher(frozen)(z, t, label)
        ramp = jnp.ones(rows)
        if tangent_warmup_steps:
            ramp = jnp.minimum(batch["step"] / tangent_warmup_steps, 1.0)
        return {"z": z, "v": velocity, "t": t, "r": r, "label": label, "ramp": ramp}

    def loss(params: Tree, frozen: Tree, inputs: Tree) -> PerSample:
        z, t, r, label = (inputs[name] for name in ("z", "t", "r", "label"))
        u = nnx.merge(ddt_graph, params)(z, t, label, r)
        network = nnx.merge(derivative_graph, jax.lax.stop_gradient(params))
        correction = interval_correction(network, inputs, interval_every)
        target = jax.lax.stop_gradient(inputs["v"] - correction)
        error = flow.squared_error(u, target)
        value = adaptive(error, power=adaptive_power, constant=adaptive_constant)
        return value, interval_metrics(error, correction, inputs["v"], interval_every)

    return Objective(sample_inputs, loss)


def interval_correction(
    network: nnx.Module, inputs: Tree, interval_every: int
) -> Float[Array, "B h w C"]:
    """Computes ramp (t - r) du/dt of the rows that have an interval; 0 of the others.

    Args:
        network: a DDT with two times, through which forward mode can pass.
        inputs: of the objective; row 0 of every `interval_every` has an interval.
        interval_every: divides the batch.
    """
    parts = {
        name: value.reshape(-1, interval_every, *value.shape[1:])[:, 0]
        for name, value in inputs.items()
    }
    z, t, r, label = (parts[name] for name in ("z", "t", "r", "label"))
    derivative = time_derivative(lambda z, t, r: network(z, t, label, r), z, t, r, parts["v"])
    factor = (parts["ramp"] * (t - r)).reshape(-1, *(1,) * (z.ndim - 1))
    correction = (factor * derivative)[:, None]
    rest = jnp.zeros((len(correction), interval_every - 1, *z.shape[1:]), z.dtype)
    return jnp.concatenate([correction, rest], axis=1).reshape(inputs["z"].shape)


def adaptive(error: Float[Array, " B"], *, power: float, constant: float) -> Float[Array, " B"]:
    """Returns values equal to the errors, with the gradients of (3)."""
    weighted = error / jax.lax.stop_gradient(error + constant) ** power
    return jax.lax.stop_gradient(error - weighted) + weighted


def interval_metrics(
    error: Float[Array, " B"],
    correction: Float[Array, "B h w C"],
    velocity: Float[Array, "B h w C"],
    interval_every: int,
) -> dict[str, Float[Array, " B"]]:
    """Returns metrics of each row whose means over the batch are means over one kind of rows.

    Rows of the other kind count as 0, and those of the kind more, by their share.

    Returns:
        "error_interval" where r < t and "error_instant" where r = t, both (3), and "correction",
        the length of (t - r) du/dt over that of v where r < t.
    """
    is_interval = jnp.arange(len(error)) % interval_every == 0

    def length(x: Array) -> Array:
        return jnp.sqrt(jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim))))

    ratio = length(correction) / length(velocity)
    metrics = {
        "error_interval": jnp.where(is_interval, error, 0.0) * interval_every,
        "correction": jnp.where(is_interval, ratio, 0.0) * interval_every,
    }
    if interval_every > 1:
        share = interval_every / (interval_every - 1)
        metrics["error_instant"] = jnp.where(is_interval, 0.0, error) * share
    return metrics

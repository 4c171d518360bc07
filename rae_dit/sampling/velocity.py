"""Velocity of a sampler: a DiT^DH and its guidance, inside the compiled program."""

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Int

from rae_dit.diffusion.guidance import Scale, VelocityField, conditional, guided_velocity
from rae_dit.diffusion.mean_flow import Average
from rae_dit.diffusion.sampler import SamplerOptions, guided_internally
from rae_dit.models.ddt import DDT
from rae_dit.models.merge import merge_for_loop


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
    """A DiT^DH taken apart for `jax.jit`: its structure is static, its parameters are traced."""

    graph: nnx.GraphDef = dataclasses.field(metadata={"static": True})
    parameters: nnx.State


def take_apart(ddt: DDT) -> Network:
    """Returns the model as an argument of a compiled program."""
    return Network(*nnx.split(ddt))


def velocity_field(
    network: Network,
    guide: Network | None,
    labels: Int[Array, " B"],
    cfg_scale: Scale,
    options: SamplerOptions,
) -> VelocityField:
    """Returns the velocity that a solver integrates; arguments are those of `integrate`."""
    float8 = options.precision == "fp8"
    ddt = merge_for_loop(network.graph, network.parameters, float8=float8)
    weaker = None
    if guide is not None:
        weaker = merge_for_loop(guide.graph, guide.parameters, float8=float8).velocity
    model = guided_internally(
        ddt.velocity, ddt.heads, options, cfg_scale, null_label=ddt.null_label
    )
    plain = conditional(model, labels)
    guided = guided_velocity(
        options.guidance, model, weaker, labels, cfg_scale, null_label=ddt.null_label
    )
    return VelocityField(plain, guided, options.interval)


def average_velocity(
    network: Network, labels: Int[Array, " B"], options: SamplerOptions
) -> Average:
    """Returns the average velocity by which "mean_flow" jumps."""
    float8 = options.precision == "fp8"
    ddt = merge_for_loop(network.graph, network.parameters, float8=float8)
    return lambda z, t, r: ddt(z, t, labels, r)

"""Velocity of a sampler: a DiT^DH and its guidance, inside the compiled program."""

from flax import nnx
from jaxtyping import Array, Int

from rae_dit.diffusion.guidance import Scale, VelocityField, conditional, guided_velocity
from rae_dit.diffusion.mean_flow import Average
from rae_dit.diffusion.sampler import SamplerOptions, guided_internally
from rae_dit.models.merge import merge_for_loop


def velocity_field(
    parameters: nnx.State,
    guide_parameters: nnx.State | None,
    labels: Int[Array, " B"],
    cfg_scale: Scale,
    *,
    graph: nnx.GraphDef,
    guide_graph: nnx.GraphDef | None,
    options: SamplerOptions,
) -> VelocityField:
    """Returns the velocity that a solver integrates; arguments are those of `integrate`."""
    float8 = options.precision == "fp8"
    ddt = merge_for_loop(graph, parameters, float8=float8)
    guide = (
        None
        if guide_graph is None
        else merge_for_loop(guide_graph, guide_parameters, float8=float8).velocity
    )
    model = guided_internally(
        ddt.velocity, ddt.heads, options, cfg_scale, null_label=ddt.null_label
    )
    plain = conditional(model, labels)
    guided = guided_velocity(
        options.guidance, model, guide, labels, cfg_scale, null_label=ddt.null_label
    )
    return VelocityField(plain, guided, options.interval)


def average_velocity(
    parameters: nnx.State, labels: Int[Array, " B"], *, graph: nnx.GraphDef, options: SamplerOptions
) -> Average:
    """Returns the average velocity by which "mean_flow" jumps."""
    ddt = merge_for_loop(graph, parameters, float8=options.precision == "fp8")
    return lambda z, t, r: ddt(z, t, labels, r)

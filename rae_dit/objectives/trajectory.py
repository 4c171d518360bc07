r"""Few steps, by consistency mid-training: average velocities of a teacher's own solver.

A frozen teacher goes from noise to data by Euler's method. Two of its states, at the solver's own
times t > r, give the average velocity between them without any derivative:

    L = mean |u(z_t, r, t) - (z_t - z_r) / (t - r)|^2                                          (1)

`pairs` different pairs of states are drawn of each trajectory, so a batch of B rows takes B / pairs
trajectories and as many of the batch's labels. No image is looked at.

Source: consistency mid-training (arXiv 2509.24526), MF-RAE (arXiv 2511.13019); FEWSTEP.md 1, 3 and
11: the released code tells the student other times than the solver's, and draws pairs repeatedly.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Int, Key

from rae_dit.diffusion import flow
from rae_dit.diffusion.guidance import VelocityField, conditional
from rae_dit.diffusion.mean_flow import average_velocity
from rae_dit.diffusion.solvers.euler import Euler
from rae_dit.objectives.base import Objective, PerSample, Tree
from rae_dit.objectives.teacher import Teacher


def trajectory(
    ddt_graph: nnx.GraphDef,
    teacher: Teacher,
    *,
    latent_shape: tuple[int, int, int],
    null_label: int,
    times: Float[np.ndarray, " T"],
    pairs: int,
    class_dropout: float,
) -> Objective:
    """Makes the objective of equation (1).

    Args:
        ddt_graph: structure of the trained DDT, of two times.
        teacher: gives the velocity from `frozen`.
        latent_shape: (h, w, C).
        null_label: label that means "no class".
        times: decreasing, of the solver's states; the last state counts as data.
        pairs: of each trajectory, without repetition; divides the batch.
        class_dropout: chance that the label of a trajectory becomes the null label.
    """
    later, earlier = np.triu_indices(len(times), k=1)

    def sample_inputs(frozen: Tree, batch: Tree, key: Key[Array, ""]) -> Tree:
        noise_key, label_key, pair_key = jax.random.split(key, 3)
        labels = batch["label"][::pairs]
        count = len(labels)
        dropped = jax.random.bernoulli(label_key, class_dropout, (count,))
        labels = jnp.where(dropped, null_label, labels)
        noise = jax.random.normal(noise_key, (count, *latent_shape))
        field = VelocityField(conditional(teacher(frozen), labels))
        states = Euler().states(noise, times, field)
        chosen = jax.vmap(lambda key: jax.random.choice(key, len(later), (pairs,), replace=False))(
            jax.random.split(pair_key, count)
        ).reshape(-1)
        number = jnp.repeat(jnp.arange(count), pairs)
        inputs = pairs_of_states(
            states, times, jnp.asarray(later)[chosen], jnp.asarray(earlier)[chosen], number
        )
        return inputs | {"label": labels[number]}

    def loss(params: Tree, frozen: Tree, inputs: Tree) -> PerSample:
        u = nnx.merge(ddt_graph, params)(inputs["z"], inputs["t"], inputs["label"], inputs["r"])
        return flow.squared_error(u, inputs["target"]), {}

    return Objective(sample_inputs, loss)


def pairs_of_states(
    states: Float[Array, "T M h w C"],
    times: Float[np.ndarray, " T"],
    later: Int[ArrayLike, " B"],
    earlier: Int[ArrayLike, " B"],
    number: Int[ArrayLike, " B"],
) -> dict[str, Array]:
    """Gathers pairs of states, and the average velocity between them.

    Args:
        states: of M trajectories at all times, the noise first.
        times: decreasing.
        later: index of the state at t, nearer to the noise, of each row.
        earlier: index of the state at r.
        number: of the row's trajectory.

    Returns:
        "z" at time "t", and its "target", the average velocity down to time "r".
    """
    known = jnp.asarray(times, states.dtype)
    t, r = known[later], known[earlier]
    z = states[later, number]
    target = average_velocity(z, states[earlier, number], t, r)
    return {"z": z, "t": t, "r": r, "target": target}

"""The devices that a program is traced for."""

import jax


def target_devices() -> tuple[str, int | None]:
    """Returns the platform and the number of devices traced for; None if the number is not known.

    They are those of the current mesh, which may not be this machine's (planning/). Without a mesh
    they are JAX's, and how a batch is sharded over several of them is not known.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.abstract_device is None:
        return jax.default_backend(), 1 if jax.device_count() == 1 else None
    return mesh.abstract_device.platform, mesh.size

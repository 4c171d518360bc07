"""Image <-> latent, and (x, t, y) -> velocity: NNX modules without a mesh or a config."""

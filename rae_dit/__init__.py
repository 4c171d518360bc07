"""Representation autoencoders and their diffusion transformers (DiT^DH) in JAX."""

__version__ = "0.1.0.dev0"

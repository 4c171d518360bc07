"""Accelerator kernels, each equal to a plain JAX function up to rounding."""

"""Kernels of the hot path that XLA does not bring; each computes what a plain form also does."""

"""Judging what the models make: Fréchet distance, a digit judge, reconstruction errors, pictures.

All but `probe`, which is a model of its own, is numpy in float64 on finished images: no jax.
scikit-learn and matplotlib are imported only when a function needs them.
"""

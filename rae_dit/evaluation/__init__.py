"""Evaluation of generated and reconstructed images: features, metrics, references, figures.

Metrics are computed by numpy in float64 on finished images or features; JAX runs in
feature_extractors.py only. scikit-learn and matplotlib are imported when a function needs them.
"""

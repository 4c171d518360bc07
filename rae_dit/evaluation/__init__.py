"""Judging what the models make: judges of images, figures, references, reconstruction, pictures.

Figures are numpy in float64 on finished images or features. jax is in `judges`, where the Inception
looks at images, and in `probe`, which is a model of its own. scikit-learn and matplotlib are
imported only when a function needs them.
"""

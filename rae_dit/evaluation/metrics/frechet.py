"""Fréchet distance between the gray levels of generated and real digits."""

from rae_dit.evaluation.metrics.fid import FID


class Frechet(FID):
    """Fréchet distance of the digit extractor's features, 64 gray levels."""

    names = ("frechet",)
    stored_as = ()

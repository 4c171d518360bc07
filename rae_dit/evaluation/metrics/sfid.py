"""sFID: Fréchet distance between the Inception's spatial features, sensitive to layout."""

from rae_dit.evaluation.metrics.fid import FID


class SFID(FID):
    """Fréchet distance of spatial features, 7 channels of an early layer at every place.

    Source: Nash et al. 2021, arXiv:2103.03841; guided-diffusion's evaluator.
    """

    names = ("sfid",)
    needs = ("spatial",)
    stored_as = (("mu_s", "sigma_s"),)

"""Fields of the modes that judge: 'evaluate' generated images, 'reconstruct' the autoencoder.

One frozen dataclass per mode: meaning, unit and range of each field. No defaults: they live in
configs/. Ranges ride on the types and are enforced on the way in (`check.py`); `__post_init__`
checks what fields of one section must agree on.
"""

import dataclasses
from typing import Literal

from rae_dit.config.check import invalid_value
from rae_dit.config.rules import check_local
from rae_dit.ranges import Count

Metric = Literal[
    *("fid", "sfid", "inception_score", "precision", "recall"),  # of 'inception'
    *("class_accuracy", "frechet"),  # of 'digits'
]
METRICS_OF = {
    "inception": ("fid", "sfid", "inception_score", "precision", "recall"),
    "digits": ("class_accuracy", "frechet", "precision", "recall"),
}


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Mode 'evaluate', and the evaluation during training."""

    judge: Literal["inception", "digits"]  # whose features: the 2015 Inception's, or grey levels
    metrics: tuple[Metric, ...]  # what to report; see METRICS_OF
    inception: str  # file of the Inception's weights (docs/evaluation.md); '' = none
    samples: str  # .npz or directory of images to judge; '' = images generated now
    num_samples: Count  # images to generate
    unguided: bool  # whether to judge images without guidance too, where sample.cfg_scale is not 1
    reference: str  # .npz of ADM's kind; '' = computed from the training images of data.source
    reference_cache: str  # directory of computed references; '' = workdir/references
    batch_size: Count  # images the judge looks at at once, in each process

    def __post_init__(self) -> None:
        """Checks that the judge can tell what is asked, and where references are kept."""
        check_local("evaluate.reference_cache", self.reference_cache)
        offered = METRICS_OF[self.judge]
        for metric in self.metrics:
            if metric not in offered:
                expected = f"metrics of judge {self.judge!r}: {', '.join(offered)}"
                raise invalid_value("evaluate.metrics", self.metrics, expected)
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise invalid_value("evaluate.metrics", self.metrics, f"some of {', '.join(offered)}")
        if self.judge == "digits" and self.reference:
            expected = "'' because judge 'digits' learns from the training images"
            raise invalid_value("evaluate.reference", self.reference, expected)


@dataclasses.dataclass(frozen=True)
class ReconstructConfig:
    """Mode 'reconstruct'; LPIPS is told if perceptual.vgg is given, rFID if evaluate.inception."""

    path: str  # an image, or a directory of images; '' = the held-out images of data.source
    num_images: Count | None  # the first so many; None = all

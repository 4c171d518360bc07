"""Config sections of the modes 'evaluate' and 'reconstruct'.

One frozen dataclass per mode: meaning, unit and range of each field. No defaults: they live in
configs/. Ranges ride on the types and are enforced on the way in (`check.py`); `__post_init__`
checks what fields of one section must agree on.
"""

import dataclasses
from typing import Literal, get_args

from rae_dit.config.check import invalid_value
from rae_dit.ranges import Count

InceptionMetric = Literal["fid", "sfid", "inception_score", "precision", "recall"]
DigitMetric = Literal["class_accuracy", "frechet", "precision", "recall"]
Metric = Literal[InceptionMetric, DigitMetric]
# Feature extractor -> metrics of its features; evaluation/metrics/ has a class for each.
METRICS_OF = {"inception": get_args(InceptionMetric), "digits": get_args(DigitMetric)}


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Mode 'evaluate', and the evaluation during training."""

    judge: Literal["inception", "digits"]  # features of the 2015 Inception, or gray levels
    metrics: tuple[Metric, ...]  # reported, in this order; see METRICS_OF
    inception: str  # file of the Inception's weights (docs/evaluation.md); '' = none
    samples: str  # .npz or directory of images to evaluate; '' = images generated now
    num_samples: Count  # images to generate
    unguided: bool  # also evaluate unguided images if sample.cfg_scale is not 1
    reference: str  # ADM-style .npz; '' = computed from the training images of data.source
    reference_cache: str  # directory of computed references; '' = workdir/references
    batch_size: Count  # images of one call of the feature extractor, in each process
    sample_batch_size: Count | None  # generated at once over all devices; None = sample.batch_size

    def __post_init__(self) -> None:
        """Checks that `judge` supports `metrics`."""
        offered = METRICS_OF[self.judge]
        for metric in self.metrics:
            if metric not in offered:
                expected = f"metrics of judge {self.judge!r}: {', '.join(offered)}"
                raise invalid_value("evaluate.metrics", self.metrics, expected)
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise invalid_value("evaluate.metrics", self.metrics, f"some of {', '.join(offered)}")
        if self.judge == "digits" and self.reference:
            expected = "'' because judge 'digits' is fitted to the training images"
            raise invalid_value("evaluate.reference", self.reference, expected)


@dataclasses.dataclass(frozen=True)
class ReconstructConfig:
    """Mode 'reconstruct'; LPIPS needs perceptual.vgg, rFID evaluate.inception."""

    path: str  # an image, or a directory of images; '' = the held-out images of data.source
    num_images: Count | None  # number of images from the first; None = all

"""Config sections of stage 1 besides the L1 loss: LPIPS and the discriminator.

One frozen dataclass per section: meaning, unit and range of each field. No defaults: they live in
configs/. Ranges ride on the types and are enforced on the way in (`check.py`); `__post_init__`
checks what fields of one section must agree on. Used by objective 'reconstruction' alone.
"""

import dataclasses
from typing import Literal

from rae_dit.config.check import invalid_value
from rae_dit.config.rules import check_decay, check_heads, in_steps
from rae_dit.ranges import Count, Decay, Natural, NonNegative, Positive, Probability


@dataclasses.dataclass(frozen=True)
class PerceptualConfig:
    """LPIPS as a term of the decoder's loss."""

    weight: NonNegative  # factor of the distance; 0 = none
    start: Natural  # first step that has the term
    start_epoch: NonNegative | None  # the same in epochs, see OptimConfig; wins where given
    vgg: str  # torchvision's vgg16, .pth or .safetensors; '' = random weights
    linear: str  # vgg.pth of LPIPS 0.1; '' = equal weights

    def __post_init__(self) -> None:
        """Requires both `vgg` and `linear`, or neither."""
        if bool(self.vgg) != bool(self.linear):
            expected = "both perceptual.vgg and perceptual.linear, or '' for both (random weights)"
            missing = "linear" if self.vgg else "vgg"
            raise invalid_value(f"perceptual.{missing}", "", expected)

    def in_steps(self, steps_per_epoch: int) -> "PerceptualConfig":
        """Returns the section with its start in steps."""
        start = in_steps(self.start, self.start_epoch, steps_per_epoch)
        return dataclasses.replace(self, start=start, start_epoch=None)


@dataclasses.dataclass(frozen=True)
class GanConfig:
    """The discriminator's training; AdamW, with the form of `optim`'s warmup and decay."""

    weight: NonNegative  # of the decoder's adversarial term, times the adaptive weight; 0 = none
    start: Natural  # first step at which the decoder has the term
    discriminator_start: Natural  # first step at which the discriminator is trained
    loss: Literal["hinge", "vanilla"]  # of the discriminator; 'vanilla' is cross entropy
    fakes: Literal["clean", "noisy"]  # tokens whose reconstructions the discriminator is shown
    augment_probability: Probability  # of each operation of DiffAug, for each image
    augment_translation: Probability  # largest shift / side
    augment_colour: bool  # random brightness, saturation and contrast
    augment_cutout: Probability  # side of the blank / side
    learning_rate: Positive  # of the discriminator
    warmup_steps: Natural  # of this and the two below: the discriminator's own updates
    decay_end_step: Natural  # its updates at which the decay ends
    # The four lengths in epochs, see OptimConfig; each wins where it is given.
    start_epoch: NonNegative | None
    discriminator_start_epoch: NonNegative | None  # discriminator_start in epochs
    warmup_epochs: NonNegative | None  # warmup_steps in epochs
    decay_end_epoch: NonNegative | None  # decay_end_step in epochs
    final_learning_rate: NonNegative  # from decay_end_step on
    beta1: Decay  # decay of the first moment
    beta2: Decay  # decay of the second moment
    epsilon: Positive  # added to the root of the second moment
    weight_decay: NonNegative  # decoupled
    clip_norm: Positive | None  # global norm of the heads' gradient; None = not clipped
    # Iterations of the heads' spectral norms: one before each pass of an update, over real images
    # and over fakes; or one before both
    power_iteration: Literal["per_pass", "per_update"]

    def __post_init__(self) -> None:
        """Checks `start >= discriminator_start` and that the decay ends after the warmup."""
        epochs = {self.start_epoch, self.discriminator_start_epoch}
        epochs |= {self.warmup_epochs, self.decay_end_epoch}
        if epochs != {None}:
            return  # checked once all are in steps
        if self.start < self.discriminator_start:
            expected = f"at least gan.discriminator_start = {self.discriminator_start}"
            raise invalid_value("gan.start", self.start, expected)
        check_decay(
            "gan",
            learning_rate=self.learning_rate,
            final_learning_rate=self.final_learning_rate,
            warmup_steps=self.warmup_steps,
            decay_end_step=self.decay_end_step,
        )

    def in_steps(self, steps_per_epoch: int) -> "GanConfig":
        """Returns the section with every length in steps.

        Raises:
            ConfigError: the lengths do not fit each other.
        """

        def steps(length: int, epochs: float | None) -> int:
            return in_steps(length, epochs, steps_per_epoch)

        return dataclasses.replace(
            self,
            start=steps(self.start, self.start_epoch),
            discriminator_start=steps(self.discriminator_start, self.discriminator_start_epoch),
            warmup_steps=steps(self.warmup_steps, self.warmup_epochs),
            decay_end_step=steps(self.decay_end_step, self.decay_end_epoch),
            start_epoch=None,
            discriminator_start_epoch=None,
            warmup_epochs=None,
            decay_end_epoch=None,
        )


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """The networks of the discriminator: frozen features and trained heads."""

    features: Literal["dino", "encoder"]  # a ViT of the sizes below, or the run's frozen encoder
    pretrained: str  # DINO's .pth; '' = random weights; unused by 'encoder'
    input_size: Count  # pixels, side of the image as it sees it; this and below for 'dino' only
    patch_size: Count  # pixels
    hidden_size: Count  # width of its blocks
    depth: Count  # blocks
    num_heads: Count  # of attention
    mlp_ratio: Positive  # hidden width of the MLP / hidden_size
    image_mean: tuple[Probability, Probability, Probability]  # of its images in [0, 1], per channel
    image_std: tuple[Positive, Positive, Positive]  # their deviation
    layers: tuple[Natural, ...]  # blocks, from 0, that a head each reads; of either feature network
    kernel_size: Count  # tokens that the heads' middle convolution spans; odd

    def __post_init__(self) -> None:
        """Checks sizes, and that every block in `layers` exists."""
        check_heads("discriminator", self.hidden_size, self.num_heads, rope=False)
        if self.input_size % self.patch_size:
            expected = f"a multiple of discriminator.patch_size = {self.patch_size}"
            raise invalid_value("discriminator.input_size", self.input_size, expected)
        if self.kernel_size % 2 == 0:
            raise invalid_value("discriminator.kernel_size", self.kernel_size, "an odd number")
        if self.pretrained and self.features == "encoder":
            expected = "'' because discriminator.features is 'encoder'"
            raise invalid_value("discriminator.pretrained", self.pretrained, expected)
        if self.features == "dino":
            self.check_layers(self.depth)

    def check_layers(self, depth: int) -> None:
        """Checks `layers` against the depth of the feature network.

        Raises:
            ConfigError: no layers, or one that the network does not have.
        """
        if not self.layers or max(self.layers) >= depth:
            expected = f"one block or more in 0 ... {depth - 1} for each head"
            raise invalid_value("discriminator.layers", self.layers, expected)

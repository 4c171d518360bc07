r"""Act 2 of the digits story with a discriminator: is the decoder sharper than with L1 alone?

The features are those of the frozen digits encoder: small, and it has seen digits. LPIPS is left
out, since VGG16 cannot halve 8 pixels four times.

COMMAND   python -m rae_dit.main --config=configs/rae_digits_gan.py --workdir=runs/rae_digits_gan \
              --config.encoder.checkpoint=runs/encoder_digits
          (launch/stage1_digits.py trains all of it for a seed, with L1 alone beside it, and
          measures)
HARDWARE  CPU; minutes: not measured yet
EXPECTED  one seed, 640 steps, gan.learning_rate 2e-3 (2026-11-23): nothing diverges, and nothing is
          gained: sharpness 0.99 beside 1.00 of L1 alone on noisy tokens, PSNR 22.5 beside 22.8.
          Digits of 8 pixels are not blurred by L1 at noise 0.8. These settings: not measured yet.
SOURCE    of the numbers: ours; the shares of the run at which the two sides start, 6/16 and 8/16,
          and the weights are the reference's (configs/default.py). The discriminator's rate is
          five times the decoder's: all its kernels have norm one, so logits grow slowly, and at
          2e-3 it was still undecided after 400 updates (loss 1.00 of 1; 2026-11-23).
"""

import ml_collections

from configs import rae_digits


def get_config() -> ml_collections.ConfigDict:
    """Act 2, adversarial."""
    config = rae_digits.get_config()
    config.optim.max_steps = 1600
    config.optim.decay_end_step = 1600
    config.gan.weight = 0.75
    config.gan.discriminator_start = 600
    config.gan.start = 800
    config.gan.learning_rate = 1e-2
    config.gan.warmup_steps = 100
    config.gan.decay_end_step = 1000
    config.gan.final_learning_rate = 1e-5
    config.gan.augment_translation = 0.125
    config.discriminator.features = "encoder"
    config.discriminator.layers = (2, 0, 1)
    config.discriminator.kernel_size = 9
    config.metrics.validate_every = 200
    config.checkpoint.save_every = 400
    return config

r"""Act 2 of the digits story: a decoder learns to paint digits from the frozen encoder's latents.

COMMAND   python -m rae_dit.main --config=configs/rae_digits.py --workdir=runs/rae_digits \
              --config.encoder.checkpoint=runs/encoder_digits
          (launch/quickstart.sh runs all three acts)
HARDWARE  CPU, half a minute on two cores
EXPECTED  held-out digits: L1 0.031, PSNR 25.9 dB (seed 0, 2026-11-26, jax 0.10.2)
SOURCE    of the numbers: ours, configs/_digits.py; the noise on latents (decoder.noise_tau) is
          the idea of RAE stage 1, there 0.8
"""

import ml_collections

from configs import _digits


def get_config() -> ml_collections.ConfigDict:
    """Act 2."""
    config = _digits.get_config()
    config.objective = "reconstruction"
    config.optim.max_steps = 500
    config.optim.decay_end_step = 500
    config.ema.decay = 0.98
    config.checkpoint.save_every = 250
    config.metrics.validate_every = 100
    return config

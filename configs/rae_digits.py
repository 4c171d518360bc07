r"""Digits example, stage 1: train a decoder for the tokens of the frozen digits encoder.

COMMAND   python -m rae_dit.main --config=configs/rae_digits.py --workdir=runs/rae_digits \
              --config.encoder.checkpoint=runs/encoder_digits
          (launch/quickstart.sh runs all stages)
HARDWARE  CPU, half a minute on two cores
EXPECTED  held-out digits: L1 0.031, PSNR 25.9 dB (seed 0, 2026-11-26, jax 0.10.2)
SOURCE    of the values: ours, configs/_digits.py; noise on the tokens (decoder.noise_tau) follows
          RAE stage 1, which uses 0.8
"""

import ml_collections

from configs import _digits


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of stage 1 on digits, with L1 alone."""
    config = _digits.get_config()
    config.objective = "reconstruction"
    config.optim.max_steps = 500
    config.optim.decay_end_step = 500
    config.ema.decay = 0.98
    config.checkpoint.save_every = 250
    config.metrics.validate_every = 100
    return config

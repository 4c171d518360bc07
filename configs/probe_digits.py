r"""Linear probe of the quickstart's frozen encoder: digit classification from its tokens.

COMMAND   python -m rae_dit.main --config=configs/probe_digits.py --workdir=runs/probe_digits \
              --mode=probe --config.encoder.checkpoint=runs/encoder_digits
          (the encoder: configs/encoder_digits.py; without --config.encoder.checkpoint an untrained
          one is probed, for comparison)
HARDWARE  CPU, under half a minute; 19 s of processor time
EXPECTED  top-1 0.772, top-5 0.989 on 359 held-out digits; untrained encoder 0.460, 0.841
          (seed 0, 2026-11-23, jax 0.10.2)
SOURCE    of the values: ours
"""

import ml_collections
from ml_collections import config_dict

from configs import _digits


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the probe of the digits encoder."""
    config = _digits.get_config()
    config.objective = "classification"
    config.probe.freeze_encoder = True
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.3
    config.optim.weight_decay = 1e-3  # 1,438 images: without it the layer overfits
    config.optim.clip_norm = config_dict.placeholder(float)  # none
    config.optim.warmup_steps = 0
    config.optim.warmup_from_zero = False
    config.optim.final_learning_rate = 0.0
    config.optim.max_steps = 400
    config.optim.decay_end_step = 400
    config.ema.decay = 0.98
    config.checkpoint.save_every = 200
    config.metrics.log_every = 50
    config.metrics.validate_every = 200
    return config

r"""Few steps on digits, stage 1: consistency mid-training on the guided teacher's trajectories.

COMMAND   bash launch/few_steps.sh runs all stages
SOURCE    of the values: ours, configs/_few_digits.py
"""

import ml_collections

from configs import _few_digits


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of mid-training on digits."""
    config = _few_digits.get_config()
    config.objective = "trajectory"
    config.few_step.pairs = 32  # of 120
    config.data.batch_size = 256  # 8 trajectories
    config.optim.max_steps = 1000
    config.optim.decay = "constant"
    config.ema.decay = 0.99
    return config

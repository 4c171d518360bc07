r"""Few steps on digits, stage 3: MeanFlow fine-tuning on data.

Data are unguided: this moves a student of a guided teacher back towards all digits.

COMMAND   bash launch/few_steps.sh runs all stages
SOURCE    of the values: ours, configs/_few_digits.py
"""

import ml_collections

from configs import _few_digits


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of fine-tuning on digits."""
    config = _few_digits.get_config()
    config.objective = "mean_flow"
    config.few_step.velocity = "data"
    config.optim.learning_rate = 3e-4
    config.optim.max_steps = 1000
    config.optim.decay_end_step = 1000
    return config

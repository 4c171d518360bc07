r"""Few steps on digits, stage 2: MeanFlow distillation of the guided teacher.

COMMAND   bash launch/few_steps.sh runs all stages
SOURCE    of the values: ours, configs/_few_digits.py
"""

import ml_collections

from configs import _few_digits


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of distillation on digits."""
    config = _few_digits.get_config()
    config.objective = "mean_flow"
    config.few_step.velocity = "teacher"
    return config

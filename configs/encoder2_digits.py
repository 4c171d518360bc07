r"""RAEv2 digits example, stage 0: train a DINOv3 encoder to tell digits apart.

COMMAND   RECIPE=raev2 bash launch/quickstart.sh runs all stages
HARDWARE  CPU, half a minute on two cores
SOURCE    of the values: ours, configs/_digits2.py; lengths as in encoder_digits.py
"""

import ml_collections

from configs import _digits2, encoder_digits


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the digits encoder of RAEv2."""
    config = encoder_digits.get_config()
    config.encoder = _digits2.get_config().encoder
    return config

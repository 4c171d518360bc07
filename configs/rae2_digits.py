r"""RAEv2 digits example, stage 1: train a decoder for two layers of the frozen digits encoder.

COMMAND   RECIPE=raev2 bash launch/quickstart.sh runs all stages
HARDWARE  CPU, half a minute on two cores
SOURCE    of the values: ours, configs/_digits2.py; lengths as in rae_digits.py
"""

import ml_collections

from configs import _digits2, rae_digits


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of RAEv2's stage 1 on digits, with L1 alone."""
    config = rae_digits.get_config()
    shared = _digits2.get_config()
    config.encoder, config.decoder = shared.encoder, shared.decoder
    return config

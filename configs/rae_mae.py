r"""Stage 1: the ViT-XL decoder of MAE-B tokens at 256 px.

COMMAND   as in rae_dino.py, with --config=configs/rae_mae.py
HARDWARE  not measured yet
EXPECTED  rFID 0.16 (RAE paper, without noise). Ours: not measured yet.
SOURCE    of the values: dit_mae.py for the encoder, rae_dino.py for the rest
"""

import ml_collections

from configs import dit_mae, rae_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the reference's stage 1 with another encoder."""
    config = rae_dino.get_config()
    config.encoder = dit_mae.get_config().encoder
    return config

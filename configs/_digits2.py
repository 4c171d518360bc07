"""Shared values of the RAEv2 digits example: what differs from configs/_digits.py.

The whole recipe at a size that trains on a laptop: a DINOv3 encoder of which two layers are read,
a decoder of unit pixels, conditions as tokens, a second head, x-prediction, Muon and internal
guidance. All values are ours but those that RAEv2 names.
"""

import ml_collections

from configs import _digits


def get_config() -> ml_collections.ConfigDict:
    """Returns the shared values; each stage sets its objective."""
    config = _digits.get_config()
    config.encoder.family = "dinov3"
    config.encoder.position_grid = 0
    config.encoder.layers = (1, 2)
    config.encoder.add_mean = True
    config.decoder.pixels = "unit"

    config.ddt.conditioning = "tokens"
    config.ddt.base_depth = 1
    config.ddt.use_qknorm = True
    config.ddt.use_pos_embed = False
    config.ddt.train_constants = True
    config.flow.prediction = "x"

    config.sample.grid = "full"
    config.sample.guidance = "internal"
    config.sample.cfg_scale = 1.78
    config.sample.cfg_interval = (0.1, 1.0)
    return config

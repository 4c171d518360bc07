r"""Stage 1: the ViT-L decoder of DINOv2-B tokens at 256 px, 304.2 M parameters.

COMMAND   as in rae_dino.py, with --config=configs/rae_dino_l.py
HARDWARE  not measured yet
EXPECTED  rFID 0.50 without noise on tokens, --config.decoder.noise_tau=0 (RAE paper). Ours: not
          measured yet.
SOURCE    of the sizes: RAE paper and bytetriper/RAE configs/decoder/ViTL; rae_dino.py for the rest
"""

import ml_collections

from configs import rae_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the reference's stage 1 with a smaller decoder."""
    config = rae_dino.get_config()
    config.decoder.hidden_size = 1024
    config.decoder.depth = 24
    config.decoder.num_heads = 16
    config.decoder.intermediate_size = 4096
    return config

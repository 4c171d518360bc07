r"""Stage 1: the decoder of 512 px images from the 256 tokens of DINOv2-B, 32 x 32 pixels a token.

COMMAND   as in rae_dino.py, with --config=configs/rae_dino_upsample.py and
          --workdir=runs/rae_dino_upsample
          Then dit_dino_upsample.py samples at 512 px from a DiT^DH trained for 256 px.
HARDWARE  not measured yet; the decoder as in rae_dino.py but for its last layer, LPIPS on four
          times the pixels
EXPECTED  rFID 0.97, and 1.61 for samples (RAE paper; 0.53 and 1.13 for 1024 tokens, which cost
          about four times as much to train and to sample from). Ours: not measured yet.
SOURCE    RAE paper, section on p_d = 2 p_e; the repository has the option (decoder_patch_size), but
          no recipe and no weights. All values are therefore those of rae_dino.py: image and crop
          twice as large, the tokens those of the 512 px image resized to 224.
"""

import ml_collections

from configs import rae_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of stage 1 with a decoder patch of twice the side."""
    config = rae_dino.get_config()
    config.data.image_size = 512
    config.decoder.patch_size = 32
    return config

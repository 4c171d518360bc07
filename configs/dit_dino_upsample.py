r"""512 px images from the DiT^DH-XL of dit_dino.py: the same 256 tokens, another decoder.

COMMAND   python -m rae_dit.main --config=configs/dit_dino_upsample.py --workdir=runs/dit_dino \
              --mode=sample --config.decoder.checkpoint=runs/rae_dino_upsample \
              --config.encoder.statistics=PATH/imagenet1k/stat.pt
          (the workdir of a run of dit_dino.py; no training is needed. For released weights use
          --config.ddt.pretrained=PATH/stage2_model.pt and a new workdir.)
HARDWARE  not measured yet; the same FLOPs as at 256 px
EXPECTED  FID 1.61 at 512 px (RAE paper). Ours: not measured yet.
SOURCE    of the values: dit_dino.py, and rae_dino_upsample.py for the decoder. The time shift
          stays 6.93: it depends on the size of the latent, not on the pixels.
"""

import ml_collections

from configs import dit_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the reference config with a decoder patch of twice the side."""
    config = dit_dino.get_config()
    config.data.image_size = 512
    config.decoder.pretrained = ""
    config.decoder.patch_size = 32
    return config

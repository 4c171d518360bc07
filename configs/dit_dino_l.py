r"""DiT^DH-L on DINOv2-B latents of ImageNet, 256 px: 621.7 M parameters.

COMMAND   python -m rae_dit.main --config=configs/dit_dino_l.py --workdir=runs/dit_dino_l \
              --config.data.path="IMAGENET/train-*" \
              --config.encoder.statistics=PATH/imagenet1k/stat.pt   (see dit_dino.py)
HARDWARE  not measured yet; 0.76 of the arithmetic of size XL
EXPECTED  no published number; ours: not measured yet
SOURCE    of the sizes: LightningDiT-L with the wide head; the repository has no config of this size
"""

import ml_collections

from configs import dit_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the reference config with a smaller backbone and the same wide head."""
    config = dit_dino.get_config()
    config.ddt.hidden_size = (1024, 2048)
    config.ddt.depth = (24, 2)
    config.ddt.num_heads = (16, 16)
    return config

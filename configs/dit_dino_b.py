r"""DiT^DH-B on DINOv2-B latents of ImageNet, 256 px: 294.3 M parameters.

COMMAND   python -m rae_dit.main --config=configs/dit_dino_b.py --workdir=runs/dit_dino_b \
              --config.data.path="IMAGENET/train-*" \
              --config.encoder.statistics=PATH/imagenet1k/stat.pt   (see dit_dino.py)
HARDWARE  not measured yet; 0.41 of the arithmetic of size XL
EXPECTED  FID 3.38 after 80 epochs, unguided (RAE paper). Ours: not measured yet.
SOURCE    of the sizes: RAE paper; the repository has no config of this size, see its issue 75
"""

import ml_collections

from configs import dit_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the reference config with a smaller backbone and the same wide head."""
    config = dit_dino.get_config()
    config.ddt.hidden_size = (768, 2048)
    config.ddt.depth = (12, 2)
    config.ddt.num_heads = (12, 16)
    return config

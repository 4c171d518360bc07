r"""DiT^DH-S on DINOv2-B latents of ImageNet, 256 px: 196.5 M parameters.

COMMAND   python -m rae_dit.main --config=configs/dit_dino_s.py --workdir=runs/dit_dino_s \
              --config.data.path="IMAGENET/train-*" \
              --config.encoder.statistics=PATH/imagenet1k/stat.pt   (see dit_dino.py)
HARDWARE  one H100, bf16, 128 images a step: 1,254 images/s, 16.4 GiB (docs/performance.md,
          2026-11-26), so 23 hours for 80 epochs
EXPECTED  FID 6.07 after 80 epochs, unguided (RAE paper). Ours: not measured yet.
          After 14 epochs it is the weak model of AutoGuidance at scale 1.42.
SOURCE    of the sizes: bytetriper/RAE and its released weights (DiTDH-S)
"""

import ml_collections

from configs import dit_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the reference config with a smaller backbone and the same wide head."""
    config = dit_dino.get_config()
    config.ddt.hidden_size = (384, 2048)
    config.ddt.depth = (12, 2)
    config.ddt.num_heads = (6, 16)
    return config

r"""DiT^DH-XL on SigLIP2-B latents of ImageNet, 256 px.

COMMAND   python -m rae_dit.main --config=configs/dit_siglip2.py --workdir=runs/dit_siglip2 \
              --config.data.path="IMAGENET/train-*" \
              --config.encoder.statistics=PATH/ImageNet1k/stat.pt
          (statistics: stats/siglip2/base_p16_i256/ImageNet1k/stat.pt of nyu-visionx/
          RAE-collections; data: see dit_dino.py)
HARDWARE  as dit_dino.py: not measured yet
EXPECTED  no published number for generation; ours: not measured yet
SOURCE    of the values: google/siglip2-base-patch16-256 (config.json, preprocessor_config.json)
          for the encoder, dit_dino.py for the rest
"""

import ml_collections

from configs import dit_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the reference config with another encoder."""
    config = dit_dino.get_config()
    encoder = config.encoder
    encoder.family = "siglip"
    encoder.pretrained = "google/siglip2-base-patch16-256"
    encoder.input_size = 256  # not resized
    encoder.position_grid = 16
    encoder.image_mean = (0.5, 0.5, 0.5)
    encoder.image_std = (0.5, 0.5, 0.5)
    encoder.patch_size = 16
    encoder.hidden_size = 768
    encoder.depth = 12
    encoder.num_heads = 12
    encoder.mlp_ratio = 4.0
    encoder.num_registers = 0
    config.decoder.pretrained = "nyu-visionx/RAE-siglip2-base-p16-i256-ViTXL-n08"
    return config

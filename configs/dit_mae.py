r"""DiT^DH-XL on MAE-B latents of ImageNet, 256 px.

COMMAND   python -m rae_dit.main --config=configs/dit_mae.py --workdir=runs/dit_mae \
              --config.data.path="IMAGENET/train-*" \
              --config.encoder.statistics=PATH/ImageNet1k/stat.pt
          (statistics: stats/mae/base_p16/ImageNet1k/stat.pt of nyu-visionx/RAE-collections;
          data: see dit_dino.py)
HARDWARE  as dit_dino.py: not measured yet
EXPECTED  no published number for generation (reconstruction: rFID 0.16, RAE paper); ours: not
          measured yet
SOURCE    of the values: facebook/vit-mae-base (config.json, preprocessor_config.json) for the
          encoder, dit_dino.py for the rest
"""

import ml_collections

from configs import dit_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the reference config with another encoder."""
    config = dit_dino.get_config()
    encoder = config.encoder
    encoder.family = "mae"
    encoder.pretrained = "facebook/vit-mae-base"
    encoder.input_size = 256  # not resized; 16 x 16 patches, as the decoder expects
    encoder.position_grid = 14  # of 224 pixels, interpolated
    encoder.image_mean = (0.485, 0.456, 0.406)
    encoder.image_std = (0.229, 0.224, 0.225)
    encoder.patch_size = 16
    encoder.hidden_size = 768
    encoder.depth = 12
    encoder.num_heads = 12
    encoder.mlp_ratio = 4.0
    encoder.num_registers = 0
    config.decoder.pretrained = "nyu-visionx/RAE-mae-base-p16-ViTXL-n08"
    return config

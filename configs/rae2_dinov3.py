r"""RAEv2, stage 1: the ViT-XL decoder of DINOv3-L tokens at 256 px, with L1, LPIPS and a GAN.

COMMAND   python -m rae_dit.main --config=configs/rae2_dinov3.py --workdir=runs/rae2 \
              --config.data.path="IMAGENET/train-*" \
              --config.data.validation_path="IMAGENET/validation-*" \
              --config.perceptual.vgg=PATH/vgg16-397923af.pth \
              --config.perceptual.linear=PATH/vgg.pth \
              --config.discriminator.pretrained=PATH/dino_vit_small_patch8_224.pth
          (docs/stage1.md says where to get the three files; data: see dit_dino.py)
          Then --mode=stats, and dit2_dinov3.py with --config.decoder.checkpoint=runs/rae2.
LATENTS   k7; dit2_dinov3.py says how to get the others
HARDWARE  not measured yet
EXPECTED  rFID 0.18 of k23 and 0.60 of k1 (RAEv2). Ours: not measured yet.
LENGTH    and all else but the encoder, the crop and the pixels as in rae_dino.py
SOURCE    of the values: as in dit2_dinov3.py. Its code runs the encoder in train mode while the
          decoder is trained, which rescales the positions at random; ours is in evaluation mode.
"""

import ml_collections

from configs import dit2_dinov3, rae_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of RAEv2's stage 1."""
    config = rae_dino.get_config()
    config.precision = "bf16"
    config.data.crop = "adm_center"
    config.encoder = dit2_dinov3.get_config().encoder
    config.decoder.pixels = "unit"
    return config

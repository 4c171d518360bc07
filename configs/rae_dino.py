r"""Stage 1: the ViT-XL decoder of DINOv2-B tokens at 256 px, with L1, LPIPS and a discriminator.

COMMAND   python -m rae_dit.main --config=configs/rae_dino.py --workdir=runs/rae_dino \
              --config.data.path="IMAGENET/train-*" \
              --config.data.validation_path="IMAGENET/validation-*" \
              --config.perceptual.vgg=PATH/vgg16-397923af.pth \
              --config.perceptual.linear=PATH/vgg.pth \
              --config.discriminator.pretrained=PATH/dino_vit_small_patch8_224.pth
          (docs/stage1.md says where to get the three files; data: see dit_dino.py)
          Then stage 2 with --config.decoder.pretrained= --config.decoder.checkpoint=runs/rae_dino,
          after --mode=stats has computed the statistics of the latents.
HARDWARE  one H100, bf16, micro-batches of 32: 374 images/s before epoch 6, 244 before 8, 212 after,
          19.8 GiB; fp32 43, 30 and 26, 44.5 GiB (docs/performance.md, 2026-11-26)
HOURS     of one H100 at these rates: 22 in bf16, 181 in fp32
EXPECTED  rFID 0.57 with noise 0.8 (RAE paper; 0.49 without noise, which generates worse).
          Ours: not measured yet.
LENGTH    16 epochs in batches of 512. The discriminator is trained from epoch 6, its term in
          the decoder's loss starts at epoch 8.
PRECISION the reference trains in bf16 or fp32; users saw bf16 fall behind (RAE issue 17).
SOURCE    of the values: bytetriper/RAE configs/stage1/training/DINOv2-B_decXL.yaml, at each value
          in configs/default.py; the released decoders may come from its TPU branch, whose betas
          are (0.5, 0.9): --config.optim.beta1=0.5 --config.optim.beta2=0.9 and the same for gan.
          The discriminator's rate differs on purpose (docs/stage1.md).
"""

import ml_collections
from ml_collections import config_dict

from configs import default

EPOCH = default.STAGE1_STEPS_PER_EPOCH


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the reference's stage 1."""
    config = default.get_config()
    config.objective = "reconstruction"
    config.data.source = "huggingface"
    config.data.batch_size = 512
    config.data.crop = "random"  # shorter side 1.5 x image_size, then a random square
    config.data.flip = False
    config.decoder.pretrained = ""
    config.decoder.train_constants = True  # its train_stage1.py makes every parameter trainable
    config.perceptual.weight = 1.0
    config.gan.weight = 0.75
    config.optim.learning_rate = 2e-4
    config.optim.warmup_steps = 1 * EPOCH
    config.optim.warmup_from_zero = True
    config.optim.decay = "cosine"
    config.optim.decay_end_step = 16 * EPOCH
    config.optim.final_learning_rate = 2e-5
    config.optim.max_steps = 16 * EPOCH
    config.optim.clip_norm = config_dict.placeholder(float)
    config.ema.decay = 0.9978
    config.checkpoint.save_every = EPOCH  # ours
    config.metrics.validate_every = EPOCH  # ours
    return config

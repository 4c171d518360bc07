r"""DiT^DH-XL on DINOv2-B latents of ImageNet, 512 px: 32 x 32 tokens instead of 16 x 16.

COMMAND   python -m rae_dit.main --config=configs/dit_dino_512.py --workdir=runs/dit_dino_512 \
              --config.data.path="IMAGENET/train-*" \
              --config.encoder.statistics=PATH/imagenet1k_512/stat.pt
          (statistics: stats/dinov2/wReg_base/imagenet1k_512/stat.pt of nyu-visionx/
          RAE-collections; data: see dit_dino.py)
HARDWARE  one H100, bf16, 32 images a step or micro-batch: 91 images/s, 56.5 GiB
          (docs/performance.md, 2026-11-26)
HOURS     of one H100 at that rate: 1,563 for 400 epochs
EXPECTED  FID 1.13 after 400 epochs with AutoGuidance (weak model: size S after 20 epochs, scale
          1.5), 50,000 samples (RAE paper). Ours: not measured yet.
SOURCE    of the values: RAE paper and released weights; the repository's training file for 512 px
          has 256 px values and does not run, so length and schedule are those of dit_dino.py,
          cut at 400 epochs. Shift 13.86 follows from the latent's 32 * 32 * 768 elements.
"""

import ml_collections

from configs import default, dit_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the reference run at 512 px."""
    config = dit_dino.get_config()
    config.data.image_size = 512
    config.encoder.input_size = 448  # 512 resized to 448: 32 x 32 patches of 14
    config.decoder.pretrained = (
        "nyu-visionx/RAE-collections/decoders/dinov2/wReg_base/ViTXL_n08_i512/model.pt"
    )
    config.optim.max_steps = 400 * default.STEPS_PER_EPOCH
    return config

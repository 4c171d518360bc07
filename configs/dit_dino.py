r"""DiT^DH-XL on DINOv2-B latents of ImageNet, 256 px: the reference run of the RAE paper.

COMMAND   python -m rae_dit.main --config=configs/dit_dino.py --workdir=runs/dit_dino \
              --config.data.path="IMAGENET/train-*" \
              --config.data.validation_path="IMAGENET/validation-*" \
              --config.encoder.statistics=PATH/imagenet1k/stat.pt
          (statistics: stats/dinov2/wReg_base/imagenet1k/stat.pt of nyu-visionx/RAE-collections)
DATA      ImageNet-1k. IMAGENET above is the directory with the parquet or arrow shards of the
          Hugging Face hub; without data.path the run stops with one line. Other sources:
          --config.data.source=folder  --config.data.path=IMAGENET/train (one directory per class)
          --config.data.source=tfds    --config.data.path=.../imagenet2012/5.1.0, and the same for
                                       data.validation_path: each takes its own split
          --config.data.source=tar     --config.data.path="SHARDS/train-*.tar" (KEY.jpg, KEY.cls)
          Without data.validation_path there is no validation. Parquet is shuffled by row groups
          (docs/data.md).
HARDWARE  one H100, bf16, 128 images a step or micro-batch: 413 images/s, 56.5 GiB; two: 802
          (docs/performance.md, 2026-11-26). Batch 1024 on one: --config.optim.accumulate_steps=8.
HOURS     of one H100 at that rate, without loading and validation: 69 for 80 epochs, 689 for 800
EXPECTED  with ImageNet, 50,000 samples, unguided, Euler 50 points: FID 3.71 after 20 epochs,
          2.16 after 80, 1.51 after 800 (RAE paper). Ours: not measured yet.
LENGTH    800 epochs as in the paper. The repository's file continues to 1400 at the final learning
          rate: --config.optim.max_steps=1751400. An 80-epoch result is an early checkpoint of the
          same run (max_steps=100080), not a shorter schedule.
PRECISION tf32 (float32 with TF32 products) is the repository's advice; losses in bf16 and fp32 were
          compared for 100 steps of size S (docs/performance.md).
SOURCE    of the values: at each value in configs/default.py. This file repeats those that define
          the recipe, so that it can be read on its own.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the reference run."""
    config = default.get_config()
    config.data.source = "huggingface"
    config.data.batch_size = 1024
    config.ddt.hidden_size = (1152, 2048)
    config.ddt.depth = (28, 2)
    config.ddt.num_heads = (16, 16)
    config.ddt.train_constants = True  # its train.py makes every parameter trainable
    config.optim.learning_rate = 2e-4
    config.optim.warmup_steps = 40 * default.STEPS_PER_EPOCH
    config.optim.decay_end_step = 800 * default.STEPS_PER_EPOCH
    config.optim.final_learning_rate = 2e-5
    config.optim.max_steps = 800 * default.STEPS_PER_EPOCH
    config.ema.decay = 0.9995
    config.checkpoint.keep_every = 80 * default.STEPS_PER_EPOCH  # ours
    return config

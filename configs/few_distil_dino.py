r"""Few steps on ImageNet 256, stage 2: MeanFlow distillation, the velocity being the teacher's.

COMMAND   python -m rae_dit.main --config=configs/few_distil_dino.py --workdir=runs/few_distil \
              --config.few_step.teacher=TEACHER --config.ddt.checkpoint=runs/few_trajectory \
              --config.data.path="IMAGENET/train-*" --config.encoder.statistics=STATISTICS
          Then the same with --mode=sample, --mode=evaluate, --mode=sweep (1, 2 and 4 jumps).
          A guided teacher: --config.few_step.cfg_scale=SCALE
          512 px: the fields in which configs/dit_dino_512.py differs from dit_dino.py, and
          --config.data.batch_size=128 --config.optim.max_steps=20000 --config.ema.decay=0.9995
HARDWARE  docs/few_steps.md
EXPECTED  FID of 50,000 samples 2.03 with one jump, 1.89 with two (MF-RAE). Ours: not measured yet.
SOURCE    of the values: [M] as in configs/_few_dino.py
"""

import ml_collections

from configs import _few_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of distillation."""
    config = _few_dino.get_config()
    config.objective = "mean_flow"
    config.few_step.velocity = "teacher"
    config.data.batch_size = 256  # [M]
    config.optim.max_steps = 180_000  # [M]
    config.ema.decay = 0.9999  # [M]
    return config

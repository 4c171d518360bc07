r"""Few steps on ImageNet 256, stage 1: consistency mid-training on the teacher's trajectories.

COMMAND   python -m rae_dit.main --config=configs/few_trajectory_dino.py \
              --workdir=runs/few_trajectory --config.few_step.teacher=TEACHER \
              --config.data.path="IMAGENET/train-*" --config.encoder.statistics=STATISTICS
          (TEACHER: a run of configs/dit_dino.py, or a released stage2_model.pt. Only labels are
          used: --config.data.source=synthetic reads no images.)
          512 px: the fields in which configs/dit_dino_512.py differs from dit_dino.py, and
          --config.few_step.pairs=8 --config.data.batch_size=64
HARDWARE  docs/few_steps.md
EXPECTED  not measured yet on ImageNet
SOURCE    of the values: [M] as in configs/_few_dino.py
"""

import ml_collections

from configs import _few_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of mid-training."""
    config = _few_dino.get_config()
    config.objective = "trajectory"
    config.data.batch_size = 512  # [M]: 8 trajectories of 64 pairs
    config.few_step.pairs = 64  # [M]
    config.optim.max_steps = 27_000  # [M]
    config.ema.decay = 0.999  # [M]
    return config

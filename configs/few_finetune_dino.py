r"""Few steps on ImageNet, stage 3: MeanFlow fine-tuning on data, the velocity being noise - data.

MF-RAE does this at 512 px alone, after distillation.

COMMAND   python -m rae_dit.main --config=configs/few_finetune_dino.py --workdir=runs/few_finetune \
              --config.ddt.checkpoint=runs/few_distil \
              --config.data.path="IMAGENET/train-*" --config.encoder.statistics=STATISTICS
          512 px: the fields in which configs/dit_dino_512.py differs from dit_dino.py
HARDWARE  docs/few_steps.md
EXPECTED  512 px, one jump: FID 3.23, 3.95 before (MF-RAE). Ours: not measured yet.
SOURCE    of the values: [M] as in configs/_few_dino.py
"""

import ml_collections

from configs import _few_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of fine-tuning."""
    config = _few_dino.get_config()
    config.objective = "mean_flow"
    config.few_step.velocity = "data"
    config.data.batch_size = 128  # [M]
    config.optim.max_steps = 10_000  # [M]
    config.ema.decay = 0.9995  # [M]
    return config

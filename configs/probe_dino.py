r"""Linear probe of DINOv2-B's patch tokens on ImageNet: class information in RAE's latents.

COMMAND   python -m rae_dit.main --config=configs/probe_dino.py --workdir=runs/probe_dino \
              --mode=probe --config.data.path="IMAGENET/train-*" \
              --config.data.validation_path="IMAGENET/validation-*"
          (data: see dit_dino.py. For SigLIP2 and MAE use the section `encoder` of dit_siglip2.py or
          dit_mae.py instead)
HARDWARE  not measured yet; forward passes of the encoder only, 12,500 steps of 1024 images
EXPECTED  top-1 84.5 % for DINOv2-B, 79.1 % for SigLIP-B, 68.0 % for MAE-B, as the RAE paper quotes
          them from the encoders' authors. Those probes also use the CLS token, or other layers;
          this one uses the mean patch token after the last norm, as RAE does. Ours: not measured
          yet.
RATE      The source trains 13 layers at once, with base rates from 1e-5 to 0.1 for 256 images, and
          selects the best on the validation images. Here each rate is a separate run: try
          --config.optim.learning_rate=0.04, 0.08, 0.2 and 0.4 (bases 0.01 to 0.1).
SOURCE    of the values: facebookresearch/dinov2, dinov2/eval/linear.py: SGD with momentum 0.9, no
          decay, no clip, 10 epochs of 1250 steps, cosine to 0, random resized crops and flips. Its
          crops are of 224 pixels; here they are of 256, which RAE resizes to 224.
"""

import ml_collections
from ml_collections import config_dict

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of the probe of the reference's encoder."""
    config = default.get_config()
    config.objective = "classification"
    config.probe.freeze_encoder = True
    config.data.source = "huggingface"
    config.data.batch_size = 1024  # 8 x 128
    config.data.crop = "random_resized"
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.2  # base 0.05 x 1024 / 256; one of 13, see RATE
    config.optim.momentum = 0.9
    config.optim.weight_decay = 0.0
    config.optim.clip_norm = config_dict.placeholder(float)  # none
    config.optim.warmup_steps = 0
    config.optim.decay = "cosine"
    config.optim.decay_end_step = 12_500
    config.optim.final_learning_rate = 0.0
    config.optim.max_steps = 12_500
    config.ema.decay = 0.999  # ours; the source has no average
    config.checkpoint.save_every = 1250
    config.metrics.validate_every = 1250
    return config

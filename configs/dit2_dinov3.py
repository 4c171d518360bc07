r"""RAEv2: DiT^DH-XL on DINOv3-L latents of ImageNet, 256 px, 80 epochs.

COMMAND   python -m rae_dit.main --config=configs/dit2_dinov3.py --workdir=runs/dit2 \
              --config.data.path="IMAGENET/train-*" \
              --config.data.validation_path="IMAGENET/validation-*" \
              --config.encoder.statistics=PATH/stats.pt --config.decoder.pretrained=PATH/decoder.pt
          (both from stage1/imagenet/dinov3l-k7 of nyu-visionx/RAEv2-models, or of a run of
          rae2_dinov3.py and --mode=stats; the encoder is gated on the hub, Meta's .pth is read too;
          data: see dit_dino.py). Then the same with --mode=evaluate or --mode=sample.
LATENTS   k7, every second of the upper 13 blocks. The published k23 and k1:
          --config.encoder.layers="(1, 2, ..., 23)"
          --config.encoder.layers="(23,)" --config.encoder.add_mean=False
HARDWARE  one H200, bf16, 128 images a step: 236 images/s, 68 GiB (docs/raev2.md, 2026-12-01)
EXPECTED  with ImageNet, 50,000 samples, Euler 100 updates: FID 1.06 with internal guidance, 1.65
          unguided (RAEv2, k7). Ours: not measured yet.
LENGTH    80 epochs: 25 at the full rate, to a tenth of it in the next 25, then constant.
PRECISION bf16, as there.
SOURCE    of the values: RAEv2 (arXiv 2605.18324) and the configs of nanovisionx/RAEv2, read as
          facts (it is not licensed for commercial use; none of its code is here); docs/raev2.md
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of RAEv2's stage 2."""
    config = default.get_config()
    config.precision = "bf16"
    config.data.source = "huggingface"
    config.data.batch_size = 1024
    config.data.flip = False

    encoder = config.encoder
    encoder.family = "dinov3"
    encoder.pretrained = "facebook/dinov3-vitl16-pretrain-lvd1689m"
    encoder.input_size = 256  # not resized
    encoder.patch_size = 16
    encoder.position_grid = 0  # no table
    encoder.hidden_size = 1024
    encoder.depth = 24
    encoder.num_heads = 16
    encoder.layers = (11, 13, 15, 17, 19, 21, 23)
    encoder.add_mean = True
    config.decoder.pretrained = ""
    config.decoder.pixels = "unit"

    ddt = config.ddt
    ddt.hidden_size = (1440, 2048)
    ddt.depth = (28, 2)
    ddt.num_heads = (20, 16)
    ddt.use_qknorm = True
    ddt.use_pos_embed = False
    ddt.conditioning = "tokens"
    ddt.base_depth = 8
    ddt.train_constants = True  # its train.py makes every parameter trainable
    config.flow.prediction = "x"

    optim = config.optim
    optim.name = "muon"
    optim.momentum = 0.95
    optim.learning_rate = 2e-4
    optim.warmup_steps = 25 * default.STEPS_PER_EPOCH
    optim.decay_end_step = 50 * default.STEPS_PER_EPOCH
    optim.final_learning_rate = 2e-5
    optim.max_steps = 80 * default.STEPS_PER_EPOCH
    config.ema.decay = 0.9995
    config.checkpoint.keep_every = 10 * default.STEPS_PER_EPOCH  # ours

    sample = config.sample
    sample.grid = "full"  # down to t = 0
    sample.num_steps = 100
    sample.guidance = "internal"
    sample.cfg_scale = 1.78
    sample.cfg_interval = (0.1, 1.0)
    return config

"""Smoke test: 20 steps of stage 2 on synthetic images, with random weights and no files.

COMMAND   python -m rae_dit.main --config=configs/dit_dummy.py --workdir=runs/dit_dummy
HARDWARE  CPU, half a minute on two cores, mostly compilation; half of that with a compile cache
EXPECTED  the run ends with one checkpoint and finite losses
SOURCE    of the values: ours
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the smallest config with more than one block, head and token per side."""
    config = default.get_config()
    config.precision = "fp32"

    config.data.source = "synthetic"
    config.data.image_size = 8
    config.data.num_classes = 4
    config.data.batch_size = 8
    config.data.num_workers = 0

    config.encoder.pretrained = ""
    config.encoder.input_size = 8
    config.encoder.position_grid = 4
    config.encoder.patch_size = 2
    config.encoder.hidden_size = 16
    config.encoder.depth = 2
    config.encoder.num_heads = 2
    config.encoder.num_registers = 1

    config.decoder.pretrained = ""
    config.decoder.patch_size = 2
    config.decoder.hidden_size = 16
    config.decoder.depth = 2
    config.decoder.num_heads = 2
    config.decoder.intermediate_size = 32

    config.ddt.hidden_size = (16, 32)
    config.ddt.depth = (2, 1)
    config.ddt.num_heads = (2, 2)
    config.flow.shift_base = 256  # = 4 * 4 * 16, so the shift is 1

    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 5
    config.optim.warmup_from_zero = True
    config.optim.decay_end_step = 20
    config.optim.max_steps = 20
    config.ema.decay = 0.9

    config.checkpoint.save_every = 10
    config.checkpoint.keep_last = 1
    config.metrics.log_every = 5
    config.metrics.validate_every = 10
    config.metrics.validate_batches = 2

    config.sample.num_samples = 4
    config.sample.num_steps = 4
    config.sample.batch_size = 4
    config.evaluate.judge = "digits"
    config.evaluate.metrics = ("class_accuracy", "frechet")
    config.evaluate.num_samples = 8
    config.evaluate.batch_size = 8
    config.metrics.evaluate_samples = 8
    return config

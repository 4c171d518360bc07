"""Values shared by the stages of few-step generation on ImageNet: network, optimizer, sampling.

Sources, cited at the values: [M] sony/mf-rae at fffc544 and arXiv 2511.13019;
[O] ours. Values without a comment are those of configs/dit_dino.py.
"""

import ml_collections

from configs import dit_dino


def get_config() -> ml_collections.ConfigDict:
    """Returns the shared values; each stage sets its objective."""
    config = dit_dino.get_config()
    config.ddt.interval_embedding = True
    config.ddt.train_constants = False  # [M]: the new frequencies are frozen
    config.flow.time_distribution = "uniform"  # [M], of both times

    config.optim.learning_rate = 1e-4  # [M], constant, without warm-up
    config.optim.warmup_steps = 0
    config.optim.decay = "constant"
    config.optim.spike_factor = 20.0  # [O]: errors of rows with r < t vary; a divergence is larger
    config.checkpoint.save_every = 1000  # [O]
    config.checkpoint.keep_every = None

    config.metrics.validate_every = 1000  # [O]

    config.sample.method = "mean_flow"
    config.sample.grid = "full"
    config.sample.num_steps = 1
    config.sweep.cfg_scales = (1.0,)
    config.sweep.num_steps = (1, 2, 4)
    return config

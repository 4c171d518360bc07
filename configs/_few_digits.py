"""Values shared by the stages of few-step generation on digits: network, teacher, sampling.

The teacher is the quickstart's DiT^DH with guidance; see configs/_digits.py. All values are ours.
"""

import ml_collections

from configs import _digits


def get_config() -> ml_collections.ConfigDict:
    """Returns the shared values; each stage sets its objective."""
    config = _digits.get_config()
    config.ddt.interval_embedding = True
    config.ddt.class_dropout = 0.0  # a student of a guided teacher needs no unlabeled branch
    config.flow.time_distribution = "uniform"
    config.few_step.cfg_scale = config.sample.cfg_scale
    config.few_step.endpoint_samples = 200

    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 0
    config.metrics.validate_every = 250

    config.sample.method = "mean_flow"
    config.sample.grid = "full"
    config.sample.num_steps = 1
    config.sample.cfg_scale = 1.0
    config.sweep.cfg_scales = (1.0,)
    config.sweep.num_steps = (1, 2, 4)
    config.sweep.metric = "frechet"
    return config

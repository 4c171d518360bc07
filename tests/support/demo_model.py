"""A model of the demo page on small random weights, and one that has none."""

from types import SimpleNamespace

from rae_dit.config import Config
from rae_dit.demo.model import Model
from rae_dit.demo.parts import RELEASED
from rae_dit.setup import models
from rae_dit.setup.sampling import load_generator
from support.sampling_run import sampling_config


def small_model(workdir, **changes) -> tuple[Config, Model]:
    """The golden DiT^DH of a run that has not been trained, as `load_run` would load it."""
    config = sampling_config(**{"sample.batch_size": 8, **changes})
    generator = load_generator(config, workdir)
    names = tuple(map(str, range(10)))
    shift, precision = models.latent_shift(config), models.matmul_precision(config)
    model = Model("RUN", generator, generator.rae, config.sample, shift, precision, names)
    return config, model


def empty_model(*, guide=None, base_depth=0, jumps=False) -> Model:
    """A model of which only settings are asked."""
    architecture = SimpleNamespace(base_depth=base_depth)
    ddt = SimpleNamespace(architecture=architecture, interval_embedding=jumps or None)
    generator = SimpleNamespace(ddt=ddt, guide=guide)
    sizes = SimpleNamespace(grid=4, patch_size=2)
    rae = SimpleNamespace(decoder=SimpleNamespace(architecture=sizes))
    return Model("RUN", generator, rae, RELEASED, 1.0, None, ("zero", "one", "tench", "one"))

"""Internal guidance against RAEv2's golden samples, and by law."""

import functools
import json

import numpy as np
import pytest
from support.golden_files import GOLDEN, arrays, channels_last
from support.small_ddt import X, Y, awake_ddt

from rae_dit.api import load_ddt
from rae_dit.sampling.latents import sample_latents

NAMES = ("dit_default", "dit_repa_equal")


def settings(name):
    return json.loads((GOLDEN / "raev2" / f"{name}.json").read_text())


def interval(kind):
    return kind["t_min"], kind["t_max"]


def guidances(name):
    """Arguments of `sample_latents` for each kind of the golden samples."""
    alone, cfg, both = (settings(name)[kind] for kind in ("ig", "cfg", "ig_cfg"))
    return {
        "unguided": {},
        "ig": {
            "guidance": "internal",
            "cfg_scale": alone["scale"],
            "cfg_interval": interval(alone),
        },
        "cfg": {"cfg_scale": cfg["scale"], "cfg_interval": interval(cfg)},
        "ig_cfg": {
            "cfg_scale": both["cfg"]["scale"],
            "cfg_interval": interval(both["cfg"]),
            "internal_scale": both["ig"]["scale"],
            "internal_interval": interval(both["ig"]),
            "internal_null_scale": both["ig"].get("unconditional_scale"),
        },
    }


@functools.cache
def sampler(name):
    golden, found = arrays(f"raev2/{name}"), settings(name)
    ddt = load_ddt(GOLDEN / "raev2" / f"{name}.pt", base_depth=found["model"]["base_model_depth"])
    return functools.partial(
        sample_latents,
        ddt,
        channels_last(golden["start"]),
        golden["labels"],
        steps=found["num_steps"],
        shift=found["time_shift"],
        grid="full",
    )


@pytest.fixture(scope="module")
def sample():
    return sampler("dit_default")


@pytest.mark.parametrize("kind", ["unguided", "ig", "cfg", "ig_cfg"])
@pytest.mark.parametrize("name", NAMES)
def test_golden_samples(name, kind):
    reference = channels_last(arrays(f"raev2/{name}")[f"sample_{kind}"])
    np.testing.assert_allclose(sampler(name)(**guidances(name)[kind]), reference, atol=1e-4)


def test_a_scale_of_one_is_no_guidance(sample):
    # 1 + 1e-7 rounds to a scale that is not 1, so that guidance is compiled in.
    guided = sample(guidance="internal", cfg_scale=float(np.nextafter(np.float32(1), 2)))
    np.testing.assert_allclose(guided, sample(), atol=1e-5)
    np.testing.assert_array_equal(sample(guidance="internal", cfg_scale=1.0), sample())


def test_a_network_with_one_head_is_refused():
    with pytest.raises(ValueError, match=r"guidance: got internal guidance; expected a network"):
        sample_latents(awake_ddt(), X, Y, steps=2, guidance="internal", cfg_scale=2.0)

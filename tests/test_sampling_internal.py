"""Internal guidance against RAEv2's golden samples, and by law."""

import functools
import json

import numpy as np
import pytest
from support.golden_files import GOLDEN, arrays, channels_last
from support.small_ddt import X, Y, awake_ddt

from rae_dit.api import load_ddt
from rae_dit.sampling.latents import sample_latents

NAME = "dit_default"
SETTINGS = json.loads((GOLDEN / "raev2" / f"{NAME}.json").read_text())


def interval(kind):
    return kind["t_min"], kind["t_max"]


IG, CFG, BOTH = (SETTINGS[kind] for kind in ("ig", "cfg", "ig_cfg"))
KINDS = {
    "unguided": {},
    "ig": {"guidance": "internal", "cfg_scale": IG["scale"], "cfg_interval": interval(IG)},
    "cfg": {"cfg_scale": CFG["scale"], "cfg_interval": interval(CFG)},
    "ig_cfg": {
        "cfg_scale": BOTH["cfg"]["scale"],
        "cfg_interval": interval(BOTH["cfg"]),
        "internal_scale": BOTH["ig"]["scale"],
        "internal_interval": interval(BOTH["ig"]),
    },
}


@pytest.fixture(scope="module")
def golden():
    return arrays(f"raev2/{NAME}")


@pytest.fixture(scope="module")
def sample(golden):
    base_depth = SETTINGS["model"]["base_model_depth"]
    ddt = load_ddt(GOLDEN / "raev2" / f"{NAME}.pt", base_depth=base_depth)
    return functools.partial(
        sample_latents,
        ddt,
        channels_last(golden["start"]),
        golden["labels"],
        steps=SETTINGS["num_steps"],
        shift=SETTINGS["time_shift"],
        grid="full",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_golden_samples(sample, golden, kind):
    reference = channels_last(golden[f"sample_{kind}"])
    np.testing.assert_allclose(sample(**KINDS[kind]), reference, atol=1e-4)


def test_a_scale_of_one_is_no_guidance(sample):
    # 1 + 1e-7 rounds to a scale that is not 1, so that guidance is compiled in.
    guided = sample(guidance="internal", cfg_scale=float(np.nextafter(np.float32(1), 2)))
    np.testing.assert_allclose(guided, sample(), atol=1e-5)
    np.testing.assert_array_equal(sample(guidance="internal", cfg_scale=1.0), sample())


def test_a_network_with_one_head_is_refused():
    with pytest.raises(ValueError, match=r"guidance: got internal guidance; expected a network"):
        sample_latents(awake_ddt(), X, Y, steps=2, guidance="internal", cfg_scale=2.0)

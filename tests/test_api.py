"""What a user types: weights in, models out."""

import numpy as np
import pytest
import torch
from support.golden_files import GOLDEN, arrays, channels_last

from rae_dit.api import load_ddt, load_decoder, load_rae
from rae_dit.config import ConfigError
from rae_dit.weights.mapping import WeightsError
from rae_dit.weights.released import read_decoder

ENCODER, DECODER = GOLDEN / "rae_dinov2_encoder", GOLDEN / "rae_dinov2_decoder"


def test_the_encoder_s_input_follows_the_decoder():
    assert load_rae(encoder=ENCODER, decoder=DECODER).encoder.input_size == 56
    assert load_rae(encoder=ENCODER).encoder.input_size == 70


def test_a_directory_and_its_file_are_the_same_decoder():
    tokens = np.random.default_rng(0).standard_normal((1, 16, 48)).astype(np.float32)
    by_directory, by_file = read_decoder(DECODER), read_decoder(DECODER / "model.pt")
    np.testing.assert_array_equal(by_directory(tokens), by_file(tokens))


def test_the_decoder_of_a_stage_1_checkpoint_is_found(tmp_path, caplog):
    plain = torch.load(DECODER / "model.pt", weights_only=True)
    whole = {f"decoder.{name}": tensor for name, tensor in plain.items()}
    whole["encoder.layernorm.weight"] = torch.ones(48)
    torch.save({"ema": whole, "step": 3}, tmp_path / "ep-0000003.pt")
    (tmp_path / "config.json").write_text((DECODER / "config.json").read_text())
    tokens = np.random.default_rng(0).standard_normal((1, 16, 48)).astype(np.float32)
    np.testing.assert_array_equal(read_decoder(tmp_path)(tokens), read_decoder(DECODER)(tokens))
    assert "taking 'decoder.*'" in caplog.text


def test_how_a_model_computes_can_be_chosen():
    model = load_ddt(GOLDEN / "ddt_default.pt", scan_layers=False, remat="full")
    assert (model.backbone.scan, model.head.remat) == (False, "full")
    rae = load_rae(encoder=ENCODER, decoder=DECODER, attention="xla")
    assert rae.encoder.trunk.blocks.attention.implementation == "xla"
    assert rae.decoder.trunk.blocks.attention.implementation == "xla"
    rae = load_rae(GOLDEN / "diffusers_mae", remat="dots")
    assert rae.encoder.trunk.remat == rae.decoder.trunk.remat == "dots"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"dtype": np.float16}, "dtype: got 'float16'; expected one of 'float32', 'bfloat16'"),
        ({"attention": "cuda"}, "attention: got 'cuda'; expected one of 'auto', 'xla', "),
        ({"remat": "dot"}, "remat: got 'dot'; expected one of 'none', 'dots', 'full'; did you"),
        ({"scan_layers": 1}, "scan_layers: got 1; expected True or False"),
    ],
)
@pytest.mark.parametrize("load", [load_ddt, load_rae, load_decoder])
def test_a_way_to_compute_that_does_not_exist_is_refused(load, choice, message):
    source = {load_ddt: GOLDEN / "ddt_default.pt", load_decoder: DECODER}.get(load)
    with pytest.raises(ConfigError) as caught:
        load_rae(encoder=ENCODER, **choice) if load is load_rae else load(source, **choice)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_arguments_may_be_numpy_and_come_back_float32():
    golden = arrays("ddt_default")
    ddt = load_ddt(GOLDEN / "ddt_default.pt")
    velocity = ddt(channels_last(golden["x"]), golden["t"], golden["y"])
    assert velocity.dtype == np.float32
    assert velocity.shape == (4, 4, 4, 24)


def test_misused_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="encoder: got None; expected an encoder"):
        load_rae()
    with pytest.raises(ValueError, match="one or the other"):
        load_rae(GOLDEN / "diffusers_mae", encoder=ENCODER)
    with pytest.raises(ValueError, match="got one of 4x4 tokens of width 48;"):
        load_rae(encoder=ENCODER, decoder=DECODER, encoder_input_size=70)
    with pytest.raises(WeightsError, match="got an empty directory; expected one file of"):
        load_ddt(tmp_path)
    with pytest.raises(
        WeightsError, match=r"s_embedder\.proj\.bias: missing; expected it in a DiT"
    ):
        load_ddt(DECODER / "model.pt")
    with pytest.raises(
        WeightsError, match=r"decoder_embed\.weight: missing; expected it in a decoder"
    ):
        read_decoder(GOLDEN / "ddt_default.pt")

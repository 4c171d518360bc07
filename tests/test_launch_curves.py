"""Losses are read as they were written, and drawn as they were read."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from launch.curves import draw_losses, loss_curves, read_losses, smooth

LINES = (
    '{"step": 10, "train/loss": 2.0, "images/s": 3.0}\n'
    '{"step": 20, "train/loss": 1.0, "val/loss": 1.5}\n'
    '{"step": 25, "images/s": 3.0}\n'
    '{"step": 30, "val/loss": null}\n'
)


def _panel(losses):
    axes = Figure().subplots()
    draw_losses(axes, losses)
    return axes


def _series(values) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1, len(values) + 1) * 10, np.asarray(values, np.float64)


@pytest.mark.parametrize("tail", ["", '{"step": 40, "train/lo', '{"step": 40', "\n"])
def test_reads_what_is_there_and_passes_over_a_torn_end(tmp_path, tail):
    file = tmp_path / "metrics.jsonl"
    file.write_text(LINES + tail)
    losses = read_losses(file)
    assert losses["train/loss"][0].tolist() == [10, 20]
    assert losses["train/loss"][1].tolist() == [2.0, 1.0]
    assert losses["val/loss"][0].tolist() == [20, 30]
    np.testing.assert_array_equal(losses["val/loss"][1], [1.5, np.nan])


@pytest.mark.parametrize("broken", ['{"step": 40, "tr', '{"train/loss": 1.0}', "7"])
def test_a_broken_line_in_the_middle_is_named(tmp_path, broken):
    file = tmp_path / "metrics.jsonl"
    file.write_text(LINES + broken + "\n" + LINES)
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 5: got .* expected one JSON"):
        read_losses(file)


def test_a_file_without_losses_is_named(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "images/s": 2.0}\n')
    with pytest.raises(ValueError, match="got 1 lines without 'train/loss' or"):
        read_losses(file)
    with pytest.raises(FileNotFoundError):
        read_losses(tmp_path / "absent.jsonl")


def test_smoothing_keeps_lines_straight_and_spreads_a_peak_evenly():
    np.testing.assert_allclose(smooth(np.arange(20.0), 3)[3:-3], np.arange(20.0)[3:-3])
    np.testing.assert_allclose(smooth(np.full(4, 2.5), 9), 2.5)
    peak = smooth(np.array([0, 0, 0, 0, 1.0, 0, 0, 0, 0]), 1)
    np.testing.assert_allclose(peak, np.array([0, 0, 0, 1, 1, 1, 0, 0, 0]) / 3)
    np.testing.assert_allclose(smooth(np.array([1.0, np.nan, 3.0]), 1), [1.0, 2.0, 3.0])
    assert np.isnan(smooth(np.array([np.nan, np.nan]), 1)).all()


def test_draws_both_losses_on_a_log_axis_with_their_last_values():
    train, validation = _series(np.linspace(2, 1, 60)), _series([2.0, 0.5, 0.125])
    axes = _panel({"train/loss": train, "val/loss": validation})
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert axes.get_yscale() == "log"
    np.testing.assert_array_equal(lines["train, each"].get_xydata(), np.stack(train, axis=1))
    np.testing.assert_array_equal(lines["validation"].get_xydata(), np.stack(validation, axis=1))
    assert lines["validation"].get_linewidth() > lines["train, smooth"].get_linewidth()
    assert lines["train, smooth"].get_linewidth() > lines["train, each"].get_linewidth()
    train_word, validation_word = sorted(text.get_text() for text in axes.texts)
    assert train_word.startswith("train 1.0")
    assert validation_word == "validation 0.125"
    colours = {text.get_text().split()[0]: text.get_color() for text in axes.texts}
    assert colours["train"] == lines["train, smooth"].get_color()
    assert colours["validation"] == lines["validation"].get_color() != colours["train"]


def test_last_values_stand_beside_their_lines_and_never_on_each_other():
    far = _panel({"train/loss": _series([9.0, 0.1]), "val/loss": _series([9.0, 1.0])})
    for text, value in zip(far.texts, (0.1, 1.0), strict=True):
        low, high = np.log(far.get_ylim())
        assert text.get_position()[1] == pytest.approx((np.log(value) - low) / (high - low))
    near = _panel({"train/loss": _series([9.0, 1.01]), "val/loss": _series([9.0, 1.0])})
    heights = {text.get_text().split()[0]: text.get_position()[1] for text in near.texts}
    assert heights["train"] - heights["validation"] == pytest.approx(0.09)


def test_a_run_that_ended_in_nan_says_so():
    axes = _panel({"train/loss": _series([2.0, 1.0, np.nan])})
    assert [text.get_text() for text in axes.texts] == ["train nan"]
    (text,) = _panel({"train/loss": _series([np.nan])}).texts
    assert text.get_text() == "train nan"
    assert text.get_position()[1] == 0.5


@pytest.mark.parametrize("values", [[0.81, 0.83], [2.2, 0.7], [5.0, 0.004], [0.7, 0.7]])
def test_every_panel_has_labelled_ticks(values):
    axes = _panel({"val/loss": _series(values)})
    low, high = axes.get_ylim()
    inside = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert len(inside) >= 3
    shown = [axes.yaxis.get_major_formatter()(tick) for tick in inside]
    np.testing.assert_allclose([json.loads(label) for label in shown], inside, rtol=1e-3)


def _pixels(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"), np.float64) / 255


def test_loss_curves_draws_one_panel_per_run(tmp_path):
    for name, scale in (("a", 1.0), ("b", 30.0)):
        lines = [
            {"step": s, "train/loss": scale / s, "val/loss": 2 * scale / s} for s in range(1, 50)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 99, "tr'
        (tmp_path / f"{name}.jsonl").write_text(text)
    runs = {"first run": tmp_path / "a.jsonl", "second run": tmp_path / "b.jsonl"}
    loss_curves(tmp_path / "one.png", {"first run": runs["first run"]})
    loss_curves(tmp_path / "two.png", runs, units={"first run": "nats", "second run": "dB"})
    one, two = _pixels(tmp_path / "one.png"), _pixels(tmp_path / "two.png")
    assert two.shape == (one.shape[0], 2 * one.shape[1], 3)
    blue, vermilion = np.array([0, 0x72, 0xB2]) / 255, np.array([0xD5, 0x5E, 0]) / 255
    for panel in (one, *np.split(two, 2, axis=1)):
        for colour in (blue, vermilion):
            assert (np.abs(panel - colour).max(axis=-1) < 0.01).sum() > 200


def test_loss_curves_refuses_nothing_and_wrong_units(tmp_path):
    with pytest.raises(ValueError, match="got no runs"):
        loss_curves(tmp_path / "a.png", {})
    with pytest.raises(ValueError, match=r"units for \['b'\]; expected \['a'\]"):
        loss_curves(tmp_path / "a.png", {"a": tmp_path / "a.jsonl"}, units={"b": "nats"})
    with pytest.raises(ValueError, match=r"expected '\.png'"):
        loss_curves(tmp_path / "a.pdf", {"a": tmp_path / "a.jsonl"})

"""--mode=sweep: each combination once, evaluated as --mode=evaluate would, continued if stopped."""

import json

import pytest
from support.sampling_run import sampling_config

from rae_dit.config import ConfigError
from rae_dit.evaluation import sweep_table
from rae_dit.evaluation.sweep_table import Cell
from rae_dit.modes import sweep as mode
from rae_dit.setup.evaluation import make_feature_extractor, score
from rae_dit.setup.sampling import load_generator

SWEPT = {
    "evaluate.num_samples": 10,
    "sweep.cfg_scales": (1.0, 2.0),
    "sweep.num_steps": (3,),
    "sweep.cfg_intervals": ((0.0, 1.0), (0.2, 0.8)),
    "sweep.metric": "frechet",
}


def config_of(**changes):
    return sampling_config(**(SWEPT | changes))


def test_a_cell_for_each_combination_and_one_without_guidance():
    cells = mode.plan(config_of(**{"sweep.num_steps": (3, 5)}))
    assert [mode.key_of(cell) for cell in cells] == [
        "cfg_scale 1, 3 steps, interval [0, 1]",
        "cfg_scale 1, 5 steps, interval [0, 1]",
        "cfg_scale 2, 3 steps, interval [0, 1]",
        "cfg_scale 2, 3 steps, interval [0.2, 0.8]",
        "cfg_scale 2, 5 steps, interval [0, 1]",
        "cfg_scale 2, 5 steps, interval [0.2, 0.8]",
    ]
    empty = {"sweep.cfg_scales": (), "sweep.num_steps": (), "sweep.cfg_intervals": ()}
    (alone,) = mode.plan(config_of(**empty))
    assert alone.sample == sampling_config().sample


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    path = tmp_path_factory.mktemp("swept")
    mode.sweep(config_of(), path)
    return path


def test_each_value_is_what_an_evaluation_gives(swept, tmp_path):
    cells = json.loads((swept / "sweep.json").read_text())["cells"]
    assert len(cells) == 3
    for cell in mode.plan(config_of())[-1:]:
        expected = score(
            load_generator(cell, tmp_path), make_feature_extractor(cell), cell, tmp_path
        )
        assert cells[mode.key_of(cell)] == pytest.approx(expected, rel=1e-4)
    values = [cell["frechet"] for cell in cells.values()]
    assert len(set(values)) == 3
    table = (swept / "sweep.md").read_text().splitlines()
    assert table[0] == "| cfg_scale | num_steps | cfg_interval | class_accuracy | frechet |"
    assert len(table) == 2 + 3
    assert sum(f"**{min(values):.4g}**" in row for row in table) == 1
    assert (swept / "sweep.png").stat().st_size > 5000


def test_a_sweep_goes_on_where_it_was_and_may_grow(swept, tmp_path, monkeypatch):
    report = json.loads((swept / "sweep.json").read_text())
    asked = []

    def scored(generator, extractor, config, workdir):
        asked.append(mode.key_of(config))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return report["cells"].get(asked[-1], {"class_accuracy": 0.5, "frechet": 1.0})

    monkeypatch.setattr(mode, "score", scored)
    with pytest.raises(KeyboardInterrupt):
        mode.sweep(config_of(), tmp_path)
    mode.sweep(config_of(), tmp_path)
    names = [*report["cells"]]
    assert asked == [names[0], names[1], names[1], names[2]]
    assert json.loads((tmp_path / "sweep.json").read_text()) == report
    mode.sweep(config_of(**{"sweep.cfg_scales": (1.0, 3.0)}), tmp_path)
    assert asked[4:] == [names[1].replace("2", "3", 1), names[2].replace("2", "3", 1)]
    assert len(json.loads((tmp_path / "sweep.json").read_text())["cells"]) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample.seed": 1}, "sweep.json: seed: got 0; expected 1. Move it away to start over"),
        ({"evaluate.num_samples": 11}, "sweep.json: num_samples: got 10; expected 11"),
        ({"seed": 3}, r"sweep.json: weights of rae: got \d+; expected \d+"),
    ],
)
def test_a_sweep_of_something_else_is_refused(swept, changes, message):
    with pytest.raises(ConfigError, match=message):
        mode.sweep(config_of(**changes), swept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sweep.metric": "fid"}, "sweep.metric: got 'fid'; expected '' or one of evaluate.metric"),
        ({"sweep.num_steps": (3, 1)}, "sample.num_steps: got 1; expected >= 2 points"),
        ({"sweep.cfg_intervals": ((0.8, 0.2),)}, "sample.cfg_interval: got"),
        ({"sweep.cfg_scales": (-1.0,)}, r"sweep.cfg_scales\[0\]: got -1.0; expected a finite"),
        ({"evaluate.samples": "a.npz"}, "evaluate.samples: got 'a.npz'; expected ''"),
    ],
)
def test_combinations_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        mode.sweep(config_of(**changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


CELLS = [
    Cell(scale, 50, interval, {"fid": value, "precision": value / 10})
    for scale, interval, value in [
        (1.0, (0.0, 1.0), 3.0),
        (1.5, (0.0, 1.0), 2.0),
        (1.5, (0.2, 1.0), 1.5),
    ]
]


def test_the_best_is_the_lowest_distance_or_the_highest_share():
    assert sweep_table.best(CELLS, "fid") is CELLS[2]
    assert sweep_table.best(CELLS, "precision") is CELLS[0]


def test_lines_are_named_by_what_differs():
    names = [sweep_table.name_of(cell, CELLS, over_scale=True) for cell in CELLS]
    assert names == ["[0, 1]", "[0, 1]", "[0.2, 1]"]
    assert sweep_table.name_of(CELLS[0], CELLS[:2], over_scale=True) == "all"


def test_each_interval_s_line_begins_without_guidance():
    drawn = sweep_table.with_unguided_everywhere(CELLS)
    assert [cell.cfg_interval for cell in drawn if cell.cfg_scale == 1.0] == [(0, 1), (0.2, 1)]
    assert len(drawn) == 4

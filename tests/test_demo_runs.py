"""Runs below a directory, as the demo page lists them: growing, broken, hostile."""

import json
import os

import pytest

from rae_dit.config import ConfigError
from rae_dit.demo.__main__ import runs_folder
from rae_dit.demo.metrics_log import MetricsLog, thinned
from rae_dit.demo.runs import RunsFolder, differences, scores
from rae_dit.demo.runs_table import ago, cells
from rae_dit.demo.shelf import KEPT_SECONDS, LOOK_SECONDS, Shelf


def line(step, **values):
    return json.dumps({"step": step, **values}) + "\n"


def losses(log):
    return log.update().get("train/loss", [])


@pytest.fixture
def root(tmp_path):
    """Two runs, a broken one, a folder of no run, and links that lead outside."""
    root = tmp_path / "runs"
    for name, rate in (("a", 0.1), ("deep/b", 0.2)):
        run = root / name
        (run / "checkpoints").mkdir(parents=True)
        config = {"objective": "flow_matching", "optim": {"learning_rate": rate, "max_steps": 20}}
        (run / "config.json").write_text(json.dumps(config))
        (run / "metrics.jsonl").write_text(line(10, **{"train/loss": rate}))
    (root / "broken/checkpoints").mkdir(parents=True)
    (root / "broken/config.json").write_text('{"optim": ')
    (root / "none").mkdir()
    outside = tmp_path / "outside"
    (outside / "checkpoints").mkdir(parents=True)
    (outside / "config.json").write_text('{"secret": 1}')
    (root / "link").symlink_to(outside)
    (root / "linked/checkpoints").mkdir(parents=True)
    (root / "linked/config.json").symlink_to(outside / "config.json")
    return root


def test_a_log_is_read_as_it_grows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    assert log.update() == {}  # not there yet
    path.write_text(line(1, **{"train/loss": 4, "other": 1}) + '{"step": 2, "train/lo')
    assert losses(log) == [(1, 4.0)]
    with path.open("a") as file:
        file.write('ss": 3}\n' + line(3, **{"train/loss": None}))
    assert losses(log)[:2] == [(1, 4.0), (2, 3.0)]
    assert losses(log)[2][0] == 3
    assert log.last("train/loss") != log.last("train/loss")  # NaN
    assert log.last_step == 3
    assert "other" not in log.series


def test_a_resumed_run_cuts_its_log_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(line(step, **{"train/loss": step}) for step in range(1, 9)))
    log = MetricsLog(path)
    assert len(losses(log)) == 8
    shorter = tmp_path / "new"
    shorter.write_text("".join(line(step, **{"train/loss": step}) for step in range(1, 4)))
    os.replace(shorter, path)  # as `MetricsWriter.truncate` does
    assert losses(log) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_lines_that_are_none_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    bad = ["[1]", '{"step": "x"}', '{"train/loss": 1}', "\x00\xff", "[" * 5000, '{"step": 1, ']
    path.write_text("\n".join([*bad, line(7, **{"train/loss": 2}), '{"step": 8, "val/a": []}', ""]))
    log = MetricsLog(path)
    assert losses(log) == [(7, 2.0)]
    assert log.bad_lines == len(bad) + 2  # and the empty line


def test_thinned_keeps_the_last_point():
    points = [(step, float(step)) for step in range(1000)]
    assert thinned(points, 2000) == points
    few = thinned(points, 7)
    assert len(few) <= 7
    assert few[-1] == points[-1]
    assert few == sorted(few)


def test_runs_are_found_and_described(root):
    folder = RunsFolder(root)
    assert folder.names() == ["a", "broken", "deep/b", "linked"]
    now = (root / "a/metrics.jsonl").stat().st_mtime + 5
    row = folder.row("a", now)
    assert (row.step, row.max_steps, row.state, row.loss) == (10, 20, "training", 0.1)
    assert folder.row("a", now + 500).state == "stopped"
    with (root / "a/metrics.jsonl").open("a") as file:
        file.write(line(20, **{"train/loss": 0.05, "eval/fid_guided": 3.5, "eval/fid_real": 1}))
    row = folder.row("a", now)
    assert (row.state, row.score, row.age) == ("finished", 3.5, pytest.approx(5, abs=60))
    assert cells([row])[0][2] == "20 of 20"


def test_runs_beside_a_given_one_are_not_shown(root):
    folder = runs_folder("", [str(root / "a"), str(root / "deep/b/checkpoints")])
    assert (folder.root, folder.names()) == (root, ["a", "deep/b"])
    with pytest.raises(ConfigError):
        folder.config("broken")
    assert runs_folder("", [str(root / "a")]).names() == ["a"]
    assert "broken" in runs_folder("", [str(root)]).names()
    assert runs_folder(str(root), ["me/published"]).root == root
    assert runs_folder("", ["me/published", "gs://bucket/run"]) is None
    with pytest.raises(ConfigError, match=r"^--runs: got 'gs://a'; expected a directory"):
        runs_folder("gs://a", [])


def test_what_is_broken_is_said(root):
    row = RunsFolder(root).row("broken")
    assert row.state == "no config"
    assert row.problem.startswith("broken/config.json: got ")
    assert row.step is None


def test_nothing_outside_the_directory_is_read(root):
    folder = RunsFolder(root)
    for name in ("..", "../outside", "link", "/etc", "", None, "none", "a/../../outside"):
        for read in (folder.config, folder.log, folder.pictures):
            with pytest.raises(ConfigError, match="expected one of the runs that are listed"):
                read(name)
    assert "secret" not in str(folder.row("linked"))
    assert folder.row("linked").state == "no config"


def test_differing_settings(root):
    folder = RunsFolder(root)
    configs = {name: folder.config(name) for name in ("a", "deep/b")}
    configs["old"] = {"objective": "flow_matching", "optim.max_steps": 20}
    assert differences(configs) == [["optim.learning_rate", "0.1", "0.2", "–"]]


def test_pictures_newest_first(root):
    pictures = root / "a/pictures"
    pictures.mkdir()
    for name in ("step_5.png", "step_40.png", "other.png", "step_x.png"):
        (pictures / name).write_bytes(b"")
    (pictures / "step_99.png").symlink_to("/etc/passwd")
    assert [step for step, _ in RunsFolder(root).pictures("a")] == [40, 5]


def test_distances_go_before_other_scores():
    names = ["eval/inception_score", "eval/sfid", "eval/fid_unguided", "eval/fid_guided"]
    assert scores(dict.fromkeys(names)) == ["eval/fid_guided", "eval/fid_unguided", "eval/sfid"]
    assert scores({"train/loss": 0}) == []


def test_ages():
    assert [ago(s) for s in (3, 90, 7200, 200000)] == ["3 s", "2 min", "2 h", "2 d"]


def test_a_shelf_writes_once_and_forgets(tmp_path):
    shelf = Shelf(tmp_path)
    path = shelf.keep(b"one", "image.png")
    before = os.stat(path).st_ino
    assert shelf.keep(b"one", "image.png") == path
    assert os.stat(path).st_ino == before  # a browser may be reading it
    os.utime(os.path.dirname(path), (0, 0))
    shelf._looked -= LOOK_SECONDS + KEPT_SECONDS
    other = shelf.keep(b"two", "image.png")
    assert os.path.exists(other)
    assert not os.path.exists(path)

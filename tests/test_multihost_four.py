"""Four processes of two devices each, in an order that mixes them, are one process of eight."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from support.four_processes import SETTINGS
from support.run_processes import start_script, statuses
from support.small_run import small_config

from rae_dit.data.folder import open_folder
from rae_dit.modes.evaluate import evaluate
from rae_dit.modes.sample import sample
from rae_dit.modes.train import train

pytestmark = pytest.mark.slow  # three minutes of CPU: every process compiles for itself

CODE = "from support.four_processes import main; main()"
RESUME = "from support.four_processes import resume; resume()"


class Four(NamedTuple):
    """What they left: the workdir, and what each of them found."""

    workdir: Path
    images: Path
    found: list[dict[str, Any]]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Four:
    folder = tmp_path_factory.mktemp("four")
    for number in range(6):
        path = folder / "images" / f"class_{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(path)
    processes = start_script(folder, CODE, count=4, arguments=(str(folder),))
    assert statuses(processes, 600) == [0] * 4, (folder / "0.log").read_text()[-3000:]
    found = [json.loads((folder / f"found-{i}.json").read_text()) for i in range(4)]
    return Four(folder / "run", folder / "images", found)


def lines(workdir: Path) -> list[dict[str, float]]:
    """Metrics without the clock's."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("speed/", "goodput/"))}
        for line in found
    ]


def test_weights_from_files_are_not_gathered(four: Four) -> None:
    """Two leaves of 1 MB; `device_put` of them gathers 2 MB from each process."""
    for found in four.found:
        assert found["place_bytes"] == 2 * 4
        assert found["place_refused"] == (
            "weights: got another 'b' on process 2 than on process 0; "
            "expected the same files on every host"
        )


def test_the_step_is_that_of_process_0_also_where_it_is_seen_late(four: Four) -> None:
    for found in four.found:
        assert found["stale_is_newest"]
        assert "process 3 has not seen it for 0.5 s; expected storage" in found["stale_refused"]


def test_one_replica_reads_for_all(four: Four) -> None:
    """The parameters are on all devices; the first in the mesh is one of process 0."""
    assert [found["reads"] for found in four.found] == [2, 0, 0, 0]


def test_one_process_lists_the_data(four: Four) -> None:
    assert [found["listings"] for found in four.found] == [3, 0, 0, 0]
    alone = open_folder(str(four.images), 2)
    for found in four.found:
        assert found["fingerprint"].startswith(alone.fingerprint)
        assert np.unique(found["record"]).tolist() == [40]  # 1.png, the first of the second class
        assert "and data.num_classes = 3 of them" in found["listing_refused"]
    assert [found["picture_listings"] for found in four.found] == [2, 0, 0, 0]
    assert [found["pictures"] for found in four.found] == [[3, 3]] * 4
    assert [found["missing_listed"] for found in four.found] == [1, 0, 0, 0]


def test_samples_and_metrics_are_those_of_one_process(four: Four, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(four.workdir, alone)
    shutil.rmtree(alone / "samples")
    config = small_config(**SETTINGS)
    sample(config, alone)
    for path in (four.workdir / "samples").glob("*.png"):
        assert path.read_bytes() == (alone / "samples" / path.name).read_bytes(), path.name
    assert len([*(alone / "samples").glob("0*.png")]) == 11
    evaluate(config, alone)
    ours, theirs = (
        json.loads((workdir / "evaluation.json").read_text()) for workdir in (four.workdir, alone)
    )
    for name in ("class_accuracy", "frechet", "precision", "recall"):
        assert ours[f"{name}_unguided"] == pytest.approx(theirs[f"{name}_unguided"], rel=1e-5)
    for found in four.found:  # values, and the counts: no features
        assert found["gathered"] < 8_192


def test_one_process_and_two_resume_four_and_go_on_alike(four: Four, tmp_path: Path) -> None:
    """Each process reads the rows of its own devices, wherever they are in the batch."""
    settings = SETTINGS | {"optim.max_steps": 6}
    whole, one, two = (tmp_path / name for name in ("whole", "one", "run"))
    for copy in (one, two):
        shutil.copytree(four.workdir, copy)
    pair = start_script(tmp_path, RESUME, count=2, devices=4, arguments=(str(tmp_path),))
    train(small_config(**settings), whole)
    train(small_config(**settings), one)
    assert statuses(pair, 300) == [0, 0], (tmp_path / "0.log").read_text()[-3000:]
    for workdir in (one, two):
        assert [line["step"] for line in lines(workdir)] == [1, 2, 3, 4, 5, 6]
        assert lines(workdir)[:4] == lines(four.workdir)
        for line, other in zip(lines(workdir), lines(whole), strict=True):
            same = {name: line[name] for name in other}  # step 4, the last of four's, has more
            assert same == pytest.approx(other, rel=1e-4)

"""Evaluation in processes of their own: during training, after it, and by two at once."""

import json

import pytest
from support.run_processes import start, start_pair, wait

pytestmark = pytest.mark.slow

SETTINGS = {
    "objective": "flow_matching",
    "ddt.depth": "(1,1)",
    "optim.max_steps": 2,
    "evaluate.metrics": "('class_accuracy','frechet','precision','recall')",
    "evaluate.num_samples": 11,
    "evaluate.batch_size": 3,
    "sample.num_steps": 3,
    "metrics.evaluate_samples": 11,
}
METRICS = ("class_accuracy", "frechet", "precision", "recall")


def test_online_is_offline_and_two_processes_are_one(tmp_path):
    workdir = tmp_path / "run"
    wait(workdir, [start(workdir, SETTINGS | {"metrics.evaluate_every": 2}, devices=2, place=None)])
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (online,) = [line for line in lines if "eval/frechet" in line]
    assert online["step"] == 2

    wait(workdir, [start(workdir, SETTINGS, devices=2, place=None, mode="evaluate")])
    offline = json.loads((workdir / "evaluation.json").read_text())
    assert offline["checkpoint_step"] == 2
    for metric in METRICS:
        assert offline[f"{metric}_unguided"] == online[f"eval/{metric}"]

    for reference in (workdir / "references").iterdir():
        reference.unlink()  # so that the two compute it together
    (workdir / "evaluation.json").unlink()
    wait(workdir, start_pair(workdir, SETTINGS, mode="evaluate"))
    together = json.loads((workdir / "evaluation.json").read_text())
    assert together["reference_images"] == offline["reference_images"] == 1024
    for metric in METRICS:
        for kind in ("unguided", "real"):
            name = f"{metric}_{kind}"
            assert together[name] == pytest.approx(offline[name], rel=1e-5), name

"""The end of --mode=train: no error of another process cuts off what follows the last step."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.small_run import small_config

from rae_dit.modes import train as mode


class DivergedError(Exception):
    """On all processes at once."""


@pytest.mark.parametrize("diverges", [True, False])
def test_metrics_and_checkpoints_are_closed_inside_one_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diverges: bool
) -> None:
    said: list[str] = []

    @contextlib.contextmanager
    def marked(name: str, value: object = None):
        try:
            yield value
        finally:
            said.append(f"{name} is closed")

    @contextlib.contextmanager
    def closing():
        said.append("closing")
        try:
            yield
        finally:
            said.append("closed")

    def run_steps(*arguments: object, **named: object) -> None:
        said.append("steps")
        if diverges:
            raise DivergedError

    config = small_config()
    run = SimpleNamespace(
        config=config, mesh=None, frozen=None, validation=None,
        task=SimpleNamespace(make_image_hooks=lambda *_: []),
    )  # fmt: skip
    state = SimpleNamespace(step=0, bad_steps=0)
    finished = SimpleNamespace(latest_step=lambda: config.optim.max_steps)  # nothing to compile
    writer = SimpleNamespace(truncate=lambda step: None)
    for name, value in {
        "closing": closing,
        "run_steps": run_steps,
        "lock_for_all": lambda _: marked("lock", lambda: None),
        "Checkpoints": lambda *_, **__: marked("checkpoints", finished),
        "MetricsWriter": lambda *_, **__: marked("metrics", writer),
        "open_run": lambda *_: run,
        "telemetry_hook": lambda *_: None,
        "validation_hook": lambda *_: None,
        "describe": lambda _: "",
        "restore_or_create": lambda *_: (run, state, None),
    }.items():
        monkeypatch.setattr(mode, name, value)
    with pytest.raises(DivergedError) if diverges else contextlib.nullcontext():
        mode.train(config, tmp_path)
    assert said == [
        *("steps", "closing", "metrics is closed", "checkpoints is closed"),
        *("lock is closed", "closed"),
    ]

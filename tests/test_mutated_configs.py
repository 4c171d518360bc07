"""A short version of the campaign of mutated configs."""

import pytest

from launch.campaigns import mutated_configs
from launch.campaigns.mutated_configs import judge, meant, run


def test_mistakes_end_in_one_line_and_status_2() -> None:
    found = run(cases=30, seed=4)
    assert found.keys() <= {"accepted", "refused"}, found
    assert len(found["refused"]) > 15


def test_what_would_be_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(1, "rae_dit: x\n") == "wrong status"
    assert judge(2, "rae_dit: x\ny\n") == "not one line"
    assert judge(2, "rae_dit: x; traceback in y\n") == "unexplained"
    assert meant("(1, 2)", (1, 2))
    assert not meant("7", 8)
    assert not meant("{0}", (0,))
    monkeypatch.setattr(mutated_configs.request, "parse", lambda argv, values: 1 / 0)
    monkeypatch.setattr(mutated_configs.plan, "parse", lambda argv, values: [][0])
    assert {"unexplained"} <= run(cases=10, seed=0).keys() <= {"unexplained", "accepted", "refused"}

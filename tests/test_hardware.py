"""Hints about accelerators that a run leaves unused."""

from pathlib import Path

import pytest

from rae_dit.hardware import unused_accelerator


@pytest.mark.parametrize(
    ("device", "environment", "platform", "hint"),
    [
        ("nvidia0", {}, "cpu", "jax[cuda13]"),
        ("nvidiactl", {"CUDA_VISIBLE_DEVICES": "0,1"}, "cpu", "jax[cuda13]"),
        ("accel0", {}, "cpu", "jax[tpu]"),
        ("null", {"SLURM_GPUS_ON_NODE": "8"}, "cpu", "jax[cuda13]"),
        ("null", {}, "cpu", None),
        ("nvidia0", {}, "gpu", None),
        ("nvidia0", {"JAX_PLATFORMS": "cpu"}, "cpu", None),
        ("nvidia0", {"CUDA_VISIBLE_DEVICES": ""}, "cpu", None),
    ],
)
def test_an_unused_accelerator_is_named_unless_the_cpu_was_asked_for(
    tmp_path: Path, device: str, environment: dict[str, str], platform: str, hint: str | None
) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / device).touch()
    found = unused_accelerator(platform, environment=environment, root=tmp_path)
    assert found is None if hint is None else hint in (found or "")

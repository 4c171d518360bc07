"""Paths of the golden files and the measure they are compared by."""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent.parent / "golden"


def arrays(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def relative_error(value, reference):
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    return np.linalg.norm(value - reference) / np.linalg.norm(reference)


def channels_last(array):
    return array.transpose(0, 2, 3, 1)

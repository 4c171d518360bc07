"""Architecture of Inception-v3 as data, for models/inception.py and weights/inception.py.

A path is a sequence of steps, a fork runs several paths on one input and joins their channels.
Names are torchvision's, which the files of weights use.

Source: Szegedy et al. 2015, arXiv:1512.00567, in the version of 2015-12-05: the 3 x 3 average pools
leave out what is outside the image, and the last block takes the maximum instead.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple


class Conv(NamedTuple):
    """A convolution without bias, batch norm and ReLU."""

    name: str
    width: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Literal["SAME", "VALID"] = "SAME"


class Pool(NamedTuple):
    """A 3 x 3 pool; 'average' leaves pixels outside the image out of sum and count."""

    kind: Literal["max", "average"]
    stride: int


class Fork(NamedTuple):
    """Paths side by side on one input, joined along channels in this order."""

    paths: tuple[tuple["Conv | Pool | Fork", ...], ...]


Path = tuple[Conv | Pool | Fork, ...]

HALVE = Pool("max", stride=2)
AVERAGE = Pool("average", stride=1)
LARGEST = Pool("max", stride=1)


def fine(pool_width: int) -> Path:
    """Returns a block on the 35 x 35 grid."""
    double = (
        Conv("branch3x3dbl_1", 64),
        Conv("branch3x3dbl_2", 96, (3, 3)),
        Conv("branch3x3dbl_3", 96, (3, 3)),
    )
    wide = (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5)))
    pooled = (AVERAGE, Conv("branch_pool", pool_width))
    return (Fork(((Conv("branch1x1", 64),), wide, double, pooled)),)


def middle(width: int) -> Path:
    """Returns a block on the 17 x 17 grid: 7 x 7 kernels as rows and columns."""
    row, column = (1, 7), (7, 1)
    single = (
        Conv("branch7x7_1", width),
        Conv("branch7x7_2", width, row),
        Conv("branch7x7_3", 192, column),
    )
    double = (
        Conv("branch7x7dbl_1", width),
        Conv("branch7x7dbl_2", width, column),
        Conv("branch7x7dbl_3", width, row),
        Conv("branch7x7dbl_4", width, column),
        Conv("branch7x7dbl_5", 192, row),
    )
    pooled = (AVERAGE, Conv("branch_pool", 192))
    return (Fork(((Conv("branch1x1", 192),), single, double, pooled)),)


def coarse(pool: Pool) -> Path:
    """Returns a block on the 8 x 8 grid."""

    def halves(name: str) -> Fork:
        return Fork(((Conv(f"{name}a", 384, (1, 3)),), (Conv(f"{name}b", 384, (3, 1)),)))

    single = (Conv("branch3x3_1", 384), halves("branch3x3_2"))
    double = (
        Conv("branch3x3dbl_1", 448),
        Conv("branch3x3dbl_2", 384, (3, 3)),
        halves("branch3x3dbl_3"),
    )
    return (Fork(((Conv("branch1x1", 320),), single, double, (pool, Conv("branch_pool", 192)))),)


TO_MIDDLE: Path = (
    Fork(
        (
            (Conv("branch3x3", 384, (3, 3), 2, "VALID"),),
            (
                Conv("branch3x3dbl_1", 64),
                Conv("branch3x3dbl_2", 96, (3, 3)),
                Conv("branch3x3dbl_3", 96, (3, 3), 2, "VALID"),
            ),
            (HALVE,),
        )
    ),
)
TO_COARSE: Path = (
    Fork(
        (
            (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2, "VALID")),
            (
                Conv("branch7x7x3_1", 192),
                Conv("branch7x7x3_2", 192, (1, 7)),
                Conv("branch7x7x3_3", 192, (7, 1)),
                Conv("branch7x7x3_4", 192, (3, 3), 2, "VALID"),
            ),
            (HALVE,),
        )
    ),
)
BLOCKS: dict[str, Path] = {
    "stem_1": (
        Conv("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
        Conv("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
        Conv("Conv2d_2b_3x3", 64, (3, 3)),
        HALVE,
    ),
    "stem_2": (
        Conv("Conv2d_3b_1x1", 80),
        Conv("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
        HALVE,
    ),
    "Mixed_5b": fine(32),
    "Mixed_5c": fine(64),
    "Mixed_5d": fine(64),
    "Mixed_6a": TO_MIDDLE,
    "Mixed_6b": middle(128),
    "Mixed_6c": middle(160),
    "Mixed_6d": middle(160),
    "Mixed_6e": middle(192),
    "Mixed_7a": TO_COARSE,
    "Mixed_7b": coarse(AVERAGE),
    "Mixed_7c": coarse(LARGEST),
}
SPATIAL = ("Mixed_6d", "branch1x1")  # TensorFlow's mixed_6/conv


def convolutions(path: Path) -> Iterator[Conv]:
    """Yields all convolutions of a path, including those inside forks."""
    for step in path:
        match step:
            case Conv():
                yield step
            case Fork():
                for inner in step.paths:
                    yield from convolutions(inner)

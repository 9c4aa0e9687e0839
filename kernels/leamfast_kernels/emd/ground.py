"""Ground distances between the cells of a grid, in cells of its finer axis.

    c(x, y) = |x - y|_2  ("euclidean")  or  |x - y|_1  ("l1")

An h x w map covers the unit square, so that a cell is 1/h high and 1/w wide: on a grid that is not square,
both axes are still measured in sides of the image. Here lengths are multiplied by max(h, w), which makes
the shortest distance on a square grid 1, whatever its size: tolerances are then the same for all grids.

Points are (2, n), rows and columns, and distances have their type: float64 in certificates, float32 where
they only point out arcs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["GROUNDS", "Array", "Cells", "Singles", "between", "blocks", "check_ground", "diameter", "lengths"]

Array = NDArray[np.float64]
Singles = NDArray[np.float32]
Cells = NDArray[np.int64]
Real = TypeVar("Real", np.float32, np.float64)
GROUNDS = ("euclidean", "l1")


def check_ground(ground: str) -> str:
    """The ground distance; raises unless there is one of this name."""
    if not isinstance(ground, str):
        raise TypeError(f"ground must be a str, 'euclidean' or 'l1', got {type(ground).__name__}")
    if ground not in GROUNDS:
        raise ValueError(
            f"ground must be 'euclidean' or 'l1', got {ground!r}: the mass that two maps share is removed"
            " before solving, which is exact for metrics only and wrong for squared distances"
        )
    return ground


@lru_cache(maxsize=64)
def blocks(size: tuple[int, int], level: int) -> tuple[Cells, Array]:
    """Blocks of 2^level x 2^level cells: their numbers for those of the level below, and centres (2, n).

    At level 0, blocks are the cells, and there are no numbers. What is returned is shared: leave it as it is.
    """
    below = [-(-side // 2 ** max(0, level - 1)) for side in size]
    here = [-(-side // 2**level) for side in size]
    rows, columns = np.divmod(np.arange(below[0] * below[1]), below[1])
    numbers = rows // 2 * here[1] + columns // 2
    centres = np.stack(np.divmod(np.arange(here[0] * here[1]), here[1])) + 0.5
    centres *= 2**level * max(size) / np.array(size, dtype=np.float64)[:, None]
    return numbers, centres


def between(x: NDArray[Real], y: NDArray[Real], ground: str) -> NDArray[Real]:
    """Distances (n, m) of points x (2, n) and y (2, m)."""
    return lengths(x[0][:, None] - y[0], x[1][:, None] - y[1], ground)


def lengths(rows: NDArray[Real], columns: NDArray[Real], ground: str) -> NDArray[Real]:
    """Lengths of vectors by their two components, which are overwritten."""
    if ground == "l1":
        np.abs(rows, out=rows)
        rows += np.abs(columns, out=columns)
        return rows
    rows *= rows
    columns *= columns
    rows += columns
    return np.sqrt(rows, out=rows)


def diameter(cells: tuple[int, int], ground: str) -> float:
    """No two points of the grid are further apart."""
    side = float(max(cells))
    return 2 * side if ground == "l1" else 2**0.5 * side

"""Maps as they are compared: cut to their supports at the input size, or whole on a common grid."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from leamfast.leam.registration import Centres
from leamfast.store.arrays import THRESHOLDS
from leamfast_kernels import area_average, support, upsample

__all__ = ["GRID", "View", "common_grid", "views"]

GRID = 28
"""Side of the grid on which whole maps are compared, where they are not coarser."""


@dataclass(frozen=True)
class View:
    """How maps of one tap are compared.

    Attributes:
        size: side of the crops, or of the frame that all models share, in pixels.
        centres: where the maps' cells lie in it; None for a plain resize.
        grid: cells of whole maps, (h, w).
        framed: whether whole maps are made of the pixels of the frame, and not of the maps' own cells.
    """

    size: int
    centres: Centres | None
    grid: tuple[int, int]
    framed: bool

    @property
    def grids(self) -> np.ndarray:
        """Cells on which maps are compared at each of `THRESHOLDS`, (T, 2)."""
        return np.array([self.grid if percent == 100 else (self.size, self.size) for percent in THRESHOLDS])


def common_grid(height: int, width: int) -> tuple[int, int]:
    """The grid on which whole maps of so many cells are compared."""
    return min(height, GRID), min(width, GRID)


def views(view: View, maps: Tensor) -> Iterator[Tensor]:
    """Maps as they are compared at each of `THRESHOLDS`.

    Args:
        view: how.
        maps: at their own resolution, (n, h, w); NaN where there is none.

    Yields:
        float32, (n, size, size), and (n, *grid) for whole maps.
    """
    pixels = upsample(maps, view.size, view.centres)
    masks = support(maps, [p for p in THRESHOLDS if p < 100], view.size, view.centres)
    missing = maps.isnan().any(dim=2).any(dim=1)[:, None, None]
    for percent, mask in zip_longest(THRESHOLDS, masks.unbind(dim=1)):
        if percent == 100:
            yield area_average(pixels if view.framed else maps, view.grid)
        else:
            yield (pixels * mask).masked_fill(missing, torch.nan)

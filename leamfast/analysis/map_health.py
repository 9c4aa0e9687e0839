"""What can be seen of a tap's maps without knowing where the face is: zeros, vanishing mass, and width."""

from dataclasses import dataclass

import numpy as np

from leamfast.store.results import Results

__all__ = ["FAINT", "MapHealth", "map_health"]

FAINT = 1e-6
"""Mass of a map below which it explains no more than 16 rounding errors of a float32 cosine (6e-8 each).

The mass, the sum over the cells, is the first-order change of the loss that the positive part of the map
stands for, and so comparable from tap to tap. With references `each` and `mean-map` the maps of images are
means of maps of mass 1, and never faint.
"""

BLOCK_BYTES = 32_000_000


@dataclass(frozen=True)
class MapHealth:
    """A tap's maps, those of images without a reference left out.

    Attributes:
        maps: how many there are.
        zeros: how many are zero everywhere.
        faint: how many others have a mass below `FAINT`.
        extent: mean over those that are not zero of the fraction of cells at or above half of the largest;
            NaN where there is none.
    """

    maps: int
    zeros: int
    faint: int
    extent: float


def map_health(results: Results, model: str, tap: str) -> MapHealth:
    """Look at all maps of a tap, a block at a time."""
    masses, extents, zeros = [], [], 0
    step = max(1, BLOCK_BYTES // (8 * results.map_cells(model, tap)))
    for start in range(0, len(results), step):
        rows = slice(start, min(start + step, len(results)))
        values = results.map(model, tap, rows).reshape(rows.stop - start, -1).astype(np.float64)
        mass = values.sum(axis=1) * results.scale(model, tap, rows)
        values, mass = values[np.isfinite(mass)], mass[np.isfinite(mass)]
        top = values.max(axis=1, initial=0)
        zeros += int((top == 0).sum())
        masses.append(mass[top > 0])
        extents.append((values[top > 0] >= top[top > 0, None] / 2).mean(axis=1))
    mass, extent = np.concatenate(masses), np.concatenate(extents)
    return MapHealth(
        maps=len(mass) + zeros,
        zeros=zeros,
        faint=int((mass < FAINT).sum()),
        extent=float(extent.mean()) if len(extent) else np.nan,
    )

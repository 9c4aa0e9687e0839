"""What two maps do not share: the only mass that an optimal plan has to move.

    d = p / sum p - q / sum q,   sources where d > 0, targets where d < 0

For a metric ground distance there is an optimal plan that leaves min(p, q) where it is (Villani, Topics in
Optimal Transportation, 2003, section 1.2: W1 depends on p - q alone), so that only d is solved, on the cells
where it is not zero. For costs that break the triangle inequality, as squared distances do, this is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leamfast_kernels.emd.ground import Array, Cells

__all__ = ["Excess", "Shares", "differences", "shares"]

LEAST_MAXIMUM, MOST_MAXIMUM = 1e-280, 1e280
NEGLIGIBLE = 1e-18  # of the mass that moves; what a rounded difference of shares holds is 1e-16


class Shares(NamedTuple):
    """Maps divided by their sums.

    Attributes:
        values: shape (N, h * w), float64.
        cells: flat indices of what is not zero, ascending, an array for each map.
        usable: maps that have shares, shape (N,); the others are zero.
    """

    values: Array
    cells: list[Cells]
    usable: NDArray[np.bool_]


class Excess(NamedTuple):
    """What one map has more of, and where the other one has more.

    Attributes:
        sources: flat indices of cells, (n,), ascending.
        a: masses of the sources, (n,), positive, of sum one.
        targets: flat indices of cells, (m,), ascending, none of them a source.
        b: masses of the targets, (m,), positive, of sum one.
        mass: what moves in all, as a share of a map; zero, without sources and targets, for equal maps.
    """

    sources: Cells
    a: Array
    targets: Cells
    b: Array
    mass: float


def shares(maps: Tensor) -> Shares:
    """Shares of maps (N, h, w).

    Each map by itself, so that its bits do not depend on the maps beside it.
    """
    maps = maps.detach().cpu().flatten(1)
    rows = (maps if maps.dtype in (torch.float32, torch.float64) else maps.float()).numpy()
    values = np.zeros(rows.shape)
    if not len(rows):
        return Shares(values, [], np.zeros(0, dtype=np.bool_))
    least, most = rows.min(axis=1), rows.max(axis=1)
    usable = (least >= 0) & (most > 0) & (most < np.inf)  # a NaN is none of these
    cells = [np.flatnonzero(row > 0) for row in rows]
    for row in np.flatnonzero(usable):
        own = rows[row, cells[row]].astype(np.float64)
        if not LEAST_MAXIMUM < float(most[row]) < MOST_MAXIMUM:  # whose sum or shares are no normal numbers
            own /= most[row]
        values[row, cells[row]] = own / own.sum()
    return Shares(values, cells, usable)


def differences(p: Shares, q: Shares, pairs: Cells) -> list[Excess]:
    """Masses that take maps i of p to maps j of q, for rows (i, j) of pairs (K, 2).

    Sums run over the cells one by one, so that the bits of a pair do not depend on those beside it.
    """
    sides = _excess(p, pairs[:, 0], q, pairs[:, 1]), _excess(q, pairs[:, 1], p, pairs[:, 0])
    found = []
    for (sources, a, more), (targets, b, less) in zip(*sides, strict=True):
        if more > 0 and less > 0:
            found.append(Excess(sources, a, targets, b, (more + less) / 2))
        else:  # one of them alone is what rounding left
            found.append(Excess(sources[:0], a[:0], targets[:0], b[:0], 0.0))
    return found


def _excess(of: Shares, i: Cells, other: Shares, j: Cells) -> Iterator[tuple[Cells, Array, float]]:
    """For each pair, cells where a map has more than another, how much, of sum one, and the sum."""
    lists = [of.cells[row] for row in i.tolist()]
    which, cells = np.repeat(np.arange(len(i)), [len(some) for some in lists]), np.concatenate(lists)
    size = of.values.shape[1]
    masses = of.values.ravel().take(cells + (i * size).take(which))
    masses -= other.values.ravel().take(cells + (j * size).take(which))
    which, cells, masses = _kept(masses > 0, which, cells, masses)
    totals = np.bincount(which, masses, len(i))
    masses /= totals.take(which)
    kept = masses > NEGLIGIBLE
    if not kept.all():
        which, cells, masses = _kept(kept, which, cells, masses)
        masses /= np.bincount(which, masses, len(i)).take(which)
    ends = np.searchsorted(which, np.arange(len(i) + 1)).tolist()
    for total, start, end in zip(totals.tolist(), ends, ends[1:], strict=False):
        yield cells[start:end], masses[start:end], total


def _kept(kept: NDArray[np.bool_], which: Cells, cells: Cells, masses: Array) -> tuple[Cells, Cells, Array]:
    return which[kept], cells[kept], masses[kept]

"""Arcs whose reduced costs c(i, j) - u(i) - v(j) are small, among all arcs of two sets of points.

All arcs are gone through slab by slab. Where there are many, that is done in float32, as roots and
comparisons then take most of the time; it only points out arcs, the costs of which are float64. No arc below
zero is overlooked, as the reach is far above what float32 rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from leamfast_kernels.emd.ground import Array, Cells, Singles, between, lengths

__all__ = ["Arcs", "Field"]

FEW = 32 * 1024  # arcs that are gone through in float64
SLAB = 32 * 1024  # arcs whose float32 costs, and two arrays beside them, stay in a cache of a core
KEPT = 1024 * 1024  # costs that are kept for the next round, in place of computed again
NEAREST = 20  # arcs of each point to begin with
SAMPLE = 512  # arcs of a point by which the nearest are told
ROUNDED = 2.0**-20  # of the largest number that occurs; what float32 loses is half of it at most


class Arcs(NamedTuple):
    """Arcs from i (k,) to j (k,), and their reduced costs (k,)."""

    i: Cells
    j: Cells
    prices: Array


class Field:
    """Costs of all arcs from points x (2, n) to points y (2, m)."""

    def __init__(self, x: Array, y: Array, ground: str) -> None:
        self.x, self.y, self.ground = x, y, ground
        self.shape = x.shape[1], y.shape[1]
        size = x.shape[1] * y.shape[1]
        self._exact = between(x, y, ground) if size <= FEW else None
        self._largest = float(x.max() + y.max())
        self._rows = max(1, SLAB // self.shape[1])
        self._kept: list[Singles] | None = [] if size <= KEPT else None

    def costs(self, i: Cells, j: Cells) -> Array:
        """Lengths of some arcs, float64."""
        if self._exact is not None:
            return self._exact.take(i * self.shape[1] + j)
        (x0, x1), (y0, y1) = self.x, self.y
        return lengths(x0.take(i) - y0.take(j), x1.take(i) - y1.take(j), self.ground)

    def priced(self, i: Cells, j: Cells, u: Array, v: Array) -> Arcs:
        """The arcs from i to j."""
        return Arcs(i, j, self.costs(i, j) - u.take(i) - v.take(j))

    def begin(self, v: Array) -> tuple[Array, Array, Arcs]:
        """Potentials on the verge of what is feasible, near a guess of v, and arcs to begin with."""
        reduced = self._less(v)
        u = reduced.min(axis=1)
        reduced -= u[:, None]
        more = reduced.min(axis=0)
        reduced -= more
        u, v = u.astype(np.float64), v + more
        return u, v, self._told(_nearest(reduced, self._rows), u, v)

    def check(self, u: Array, v: Array, reach: float) -> tuple[Array, Callable[[], Arcs]]:
        """What makes v feasible when added to it, (m,), and a call for arcs with c - u - v below reach."""
        largest = sum(float(np.abs(values).max()) for values in (u, v)) + self._largest
        if self._exact is not None or not 2 * ROUNDED * largest < reach:
            # Few arcs, or potentials that have lost touch with costs.
            reduced = between(self.x, self.y, self.ground) if self._exact is None else self._exact
            reduced = reduced - u[:, None]
            reduced -= v
            least = np.minimum(reduced.min(axis=0), 0)
            return least, lambda: self._told(np.flatnonzero(reduced < reach), u, v)
        u_single, v_single, found = u.astype(np.float32) + np.float32(reach), v.astype(np.float32), []
        for start, costs in self._slabs():
            close = costs - v_single < u_single[start : start + len(costs), None]
            found.append(np.flatnonzero(close) + start * self.shape[1])
        near = self._told(np.concatenate(found), u, v)
        least, below = np.zeros(self.shape[1]), np.flatnonzero(near.prices < 0)
        np.minimum.at(least, near.j[below], near.prices[below])
        return least, lambda: near

    def _told(self, flat: Cells, u: Array, v: Array) -> Arcs:
        i = flat // self.shape[1]
        return self.priced(i, flat - i * self.shape[1], u, v)

    def _less(self, v: Array) -> Array | Singles:
        """Costs less v, (n, m)."""
        if self._exact is not None:
            return self._exact - v
        single = v.astype(np.float32)
        reduced = np.empty(self.shape, dtype=np.float32)
        for start, costs in self._slabs():
            np.subtract(costs, single, out=reduced[start : start + len(costs)])
        return reduced

    def _slabs(self) -> Iterator[tuple[int, Singles]]:
        """Number of the first row of costs, and the costs of some rows."""
        x, y = self.x.astype(np.float32), self.y.astype(np.float32)
        for number, start in enumerate(range(0, self.shape[0], self._rows)):
            if self._kept is not None and number < len(self._kept):
                yield start, self._kept[number]
                continue
            costs = between(x[:, start : start + self._rows], y, self.ground)
            if self._kept is not None:
                self._kept.append(costs)
            yield start, costs


def _nearest(reduced: Array | Singles, step: int) -> Cells:
    """About the `NEAREST` smallest of each row and of each column, by samples of them; flat places.

    In float32, which sorts faster.
    """
    reduced = reduced.astype(np.float32, copy=False)
    n, m = reduced.shape
    across, down = max(2, m // SAMPLE), max(2, n // SAMPLE)
    rows, columns = reduced[:, ::across], reduced[::down]
    last = min(max(2, NEAREST // across), rows.shape[1]) - 1
    of_rows = np.partition(rows, last, axis=1)[:, last, None]
    last = min(max(2, NEAREST // down), len(columns)) - 1
    of_columns = np.partition(columns, last, axis=0)[last]
    found = []
    for start in range(0, n, step):
        part = reduced[start : start + step]
        kept = part <= of_rows[start : start + step]
        kept |= part <= of_columns
        found.append(np.flatnonzero(kept) + start * m)
    return np.concatenate(found)

"""Transport of several pairs at a time, where each is so small that calls would take longer than work.

The problem and its certificate are those of `simplex`; what is done in numpy is done for all pairs of a batch
at once, on arrays (B, n, m) that are padded to the largest of them. No bit of a pair depends on the others:
minima do not, and sums run over the cells one by one, to which padding adds zeros. Padding stands so far away
that no arc of it is near.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leamfast_kernels.emd import simplex
from leamfast_kernels.emd.ground import Array, Cells, blocks, diameter, lengths
from leamfast_kernels.emd.reduction import Excess

__all__ = ["fits", "transport_together"]

LONGEST = 192  # sources or targets of a pair that is solved beside others
NEAREST = 24  # arcs of each point to begin with
STEP = 2  # of the points by which the nearest are told
FAR = 1e6  # cells to where padding is


def fits(excess: Excess) -> bool:
    """Whether a pair may be solved beside others."""
    n, m = len(excess.a), len(excess.b)
    return n * m > simplex.SMALL and min(n, m) >= NEAREST and max(n, m) <= LONGEST


class _Points(NamedTuple):
    """Points of B pairs, padded to n.

    Attributes:
        counts: points of each pair.
        inside: what is no padding, (B, n).
        cells: of a grid, (B, n), 0 in the padding.
        masses: (B, n), 0 in the padding.
        places: rows and columns, (2, B, n), far away in the padding.
    """

    counts: list[int]
    inside: NDArray[np.bool_]
    cells: Cells
    masses: Array
    places: Array


def transport_together(excesses: Sequence[Excess], size: tuple[int, int], ground: str) -> Array:
    """Cheapest ways to move excesses that fit.

    Args:
        excesses: of B pairs.
        size: (h, w) of the grid.
        ground: "euclidean" or "l1".

    Returns:
        Cost and its lower and upper bound, (B, 3), in cells of the finer axis, for a mass of one. NaN where
        no certificate was found, which `transport` may still find.
    """
    centres = blocks(size, 0)[1]
    x = _points([e.sources for e in excesses], [e.a for e in excesses], centres, FAR)
    y = _points([e.targets for e in excesses], [e.b for e in excesses], centres, -FAR)
    guess, todo = _guess(x, y, size, ground)
    costs = _between(x, y, ground)
    u, v, reduced = _begin(costs, guess, x, y)
    near = _nearest(reduced, x, y)
    found = np.full((len(excesses), 3), np.nan)
    n, m = costs.shape[1:]
    rows, columns = np.repeat(np.arange(n, dtype=np.uint64), m), np.tile(np.arange(m, dtype=np.uint64), n)
    if len(todo) < len(excesses):
        reduced, near = reduced[todo], near[todo]
    for _ in range(simplex.ROUNDS):
        solved, plans = [], []
        for which, arcs, prices in zip(todo, near, reduced, strict=True):
            flat = np.flatnonzero(arcs)
            a, b = x.masses[which, : x.counts[which]], y.masses[which, : y.counts[which]]
            i, j = rows.take(flat), columns.take(flat)
            *plan, _, more_u, more_v, code = simplex.solvers()[1](
                a, b, i, j, prices.take(flat), simplex.PIVOTS
            )
            if code == simplex.OPTIMAL:
                u[which, : len(a)] += more_u
                v[which, : len(b)] += more_v
                solved.append(which)
                plans.append(plan)
        if not solved:
            break
        # Indices of all pairs would copy what a slice shows.
        at = slice(None) if len(solved) == len(excesses) else np.array(solved)
        reduced = costs[at] - u[at][:, :, None]
        reduced -= v[at][:, None, :]
        excess = np.minimum(reduced.min(axis=1), 0)
        lower = _totals(x.masses[at] * u[at]) + _totals(y.masses[at] * (v[at] + excess))
        cost, missed = _checked(plans, x.masses[at], y.masses[at], costs[at])
        upper = cost + missed * diameter(size, ground)
        lower = np.minimum(lower, cost)
        done = (cost - lower <= simplex.GAP * cost) & (upper - lower <= simplex.CERTAIN * upper)
        bounds = np.stack([cost, lower, upper], axis=1)
        found[[which for which, end in zip(solved, done, strict=True) if end]] = bounds[done]
        todo = [which for which, end in zip(solved, done, strict=True) if not end]
        if not todo:
            break
        reduced = reduced[~done]
        near = reduced < simplex.REACH
    return found


def _points(cells: Sequence[Cells], masses: Sequence[Array], centres: Array, far: float) -> _Points:
    """Cells of each pair, padded to the longest."""
    counts = [len(some) for some in cells]
    inside = np.arange(max(counts)) < np.array(counts)[:, None]
    padded, weights = np.zeros(inside.shape, dtype=np.int64), np.zeros(inside.shape)
    padded[inside], weights[inside] = np.concatenate(cells), np.concatenate(masses)
    places = centres.take(padded, axis=1)
    places[:, ~inside] = far
    return _Points(counts, inside, padded, weights, places)


def _between(x: _Points, y: _Points, ground: str) -> Array:
    """Distances (B, n, m)."""
    return lengths(
        x.places[0][:, :, None] - y.places[0][:, None, :],
        x.places[1][:, :, None] - y.places[1][:, None, :],
        ground,
    )


def _guess(x: _Points, y: _Points, size: tuple[int, int], ground: str) -> tuple[Array, list[int]]:
    """Potentials of y (B, m) from a grid of half the resolution, and the pairs that have them."""
    numbers, centres = blocks(size, 1)
    pairs, count = len(x.cells), centres.shape[1]
    first = count * np.arange(pairs)[:, None]
    signed = np.bincount((numbers.take(x.cells) + first).ravel(), x.masses.ravel(), pairs * count)
    signed -= np.bincount((numbers.take(y.cells) + first).ravel(), y.masses.ravel(), pairs * count)
    ends = []
    for values, far in ((signed, FAR), (-signed, -FAR)):
        flat = np.flatnonzero(values > simplex.CANCELLED)
        which, masses = flat // count, values.take(flat)
        masses = masses / np.bincount(which, masses, pairs).take(which)
        cuts = np.cumsum(np.bincount(which, minlength=pairs))[:-1]
        ends.append(_points(np.split(flat % count, cuts), np.split(masses, cuts), centres, far))
    coarse_x, coarse_y = ends
    costs = _between(coarse_x, coarse_y, ground)
    u, v, reduced = _begin(costs, np.zeros(costs.shape[::2]), coarse_x, coarse_y)
    todo = []
    for which, (n, m) in enumerate(zip(coarse_x.counts, coarse_y.counts, strict=True)):
        if min(n, m) < 2 or n * m > simplex.SMALL:
            continue
        a, b = coarse_x.masses[which, :n], coarse_y.masses[which, :m]
        some = np.ascontiguousarray(reduced[which, :n, :m])
        _, _, more_u, more_v, code = simplex.solvers()[0](a, b, some, simplex.PIVOTS, 1)
        if code == simplex.OPTIMAL:
            u[which, :n] += more_u
            v[which, :m] += more_v
            todo.append(which)
    # Halfway between the largest and the smallest 1-Lipschitz function, as for a pair alone.
    coarse_x, coarse_y, fine = (_single(points) for points in (coarse_x, coarse_y, y))
    smallest = (u.astype(np.float32)[:, :, None] - _between(coarse_x, fine, ground)).max(axis=1)
    largest = (_between(coarse_y, fine, ground) - v.astype(np.float32)[:, :, None]).min(axis=1)
    return np.where(y.inside, -(largest + smallest).astype(np.float64) / 2, 0), todo


def _single(points: _Points) -> _Points:
    return points._replace(places=points.places.astype(np.float32))


def _begin(costs: Array, v: Array, x: _Points, y: _Points) -> tuple[Array, Array, Array]:
    """Potentials on the verge of what is feasible, near a guess of v, and the reduced costs."""
    reduced = costs - v[:, None, :]
    u = np.where(x.inside, reduced.min(axis=2), 0)
    reduced -= u[:, :, None]
    more = np.where(y.inside, reduced.min(axis=1), 0)
    reduced -= more[:, None, :]
    return u, v + more, reduced


def _nearest(reduced: Array, x: _Points, y: _Points) -> NDArray[np.bool_]:
    """About the smallest of each row and column, by every `STEP`-th; in float32, which sorts faster."""
    single = reduced.astype(np.float32)
    last = NEAREST // STEP - 1
    of_rows = np.partition(single[:, :, ::STEP], last, axis=2)[:, :, last]
    of_columns = np.partition(single[:, ::STEP], last, axis=1)[:, last]
    near = single <= np.where(x.inside, of_rows, -1)[:, :, None]
    near |= single <= np.where(y.inside, of_columns, -1)[:, None, :]
    return near


def _checked(plans: Sequence[Sequence[NDArray]], a: Array, b: Array, costs: Array) -> tuple[Array, Array]:
    """Costs of plans, and masses that they take from, or put, where they should not, (B,)."""
    pairs, n, m = costs.shape
    which = np.repeat(np.arange(pairs), [len(plan[2]) for plan in plans])
    i, j = (np.concatenate([plan[side] for plan in plans]).view(np.int64) for side in (0, 1))
    flows = np.concatenate([plan[2] for plan in plans])
    i += which * n
    moved = flows * costs.ravel().take(i * m + j)
    cost = np.asarray(np.bincount(which, moved, pairs), dtype=np.float64)
    j += which * m
    missed = _totals(np.abs(np.bincount(i, flows, pairs * n).reshape(pairs, n) - a))
    missed += _totals(np.abs(np.bincount(j, flows, pairs * m).reshape(pairs, m) - b))
    return cost, missed / 2


def _totals(values: Array) -> Array:
    """Sums of rows, one by one."""
    return values.cumsum(axis=1)[:, -1]

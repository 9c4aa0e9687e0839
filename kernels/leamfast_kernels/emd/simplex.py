"""Exact transport of what two maps do not share, with a certificate; one pair.

    min sum f(i, j) c(i, j),  f >= 0 with marginals a, b   =   max sum a u + sum b v,  u(i) + v(j) <= c(i, j)

POT's network simplex solves the problem on a few of its arcs, those that potentials from a grid of half the
resolution hold for the cheapest. Over ALL arcs, w(j) = min_i c(i, j) - u(i) then makes its potentials
feasible, and sum a u + sum b w a lower bound. Where that is not yet the cost of the plan, the next round
takes the arcs with u + v > c, and those that are close: few pairs need a third. Problems that are small, or
that do not end after some rounds, are solved on all arcs.

Reference: Bonneel, van de Panne, Paris, Heidrich, Displacement interpolation using Lagrangian mass transport,
SIGGRAPH Asia 2011 (the simplex); Schmitzer, A sparse multiscale algorithm for dense optimal transport,
J. Math. Imaging Vision 56 (2016); Merigot, A multiscale approach to optimal transport, SGP 2011.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from leamfast_kernels.emd.arcs import Arcs, Field
from leamfast_kernels.emd.ground import Array, Cells, between, blocks, diameter
from leamfast_kernels.emd.reduction import Excess

__all__ = ["Bounds", "solvers", "transport"]

SMALL = 64 * 64  # arcs of a problem that is solved on all of them
REACH = 0.3  # cells by which potentials are expected to change after the first round
ROUNDS = 8
GAP = 1e-10  # of the cost, at which a plan is optimal
CERTAIN = 1e-9  # of the upper bound; nothing that is wider is returned
CANCELLED = 1e-15  # mass of a block that is the rounding of a sum
PIVOTS = 10**8
OPTIMAL = 1  # result code of POT's solvers


class Bounds(NamedTuple):
    """Cost of a plan, and what the cheapest plan costs at least and at most; in cells."""

    value: float
    lower: float
    upper: float


class _Plan(NamedTuple):
    cost: float
    lower: float  # that no plan falls below
    missed: float  # mass that the plan takes from, or puts, where it should not
    u: Array
    v: Array


class _Potentials(NamedTuple):
    """Points of sources x (2, n) and targets y (2, m) with their potentials."""

    x: Array
    u: Array
    y: Array
    v: Array


@cache
def solvers() -> tuple[Callable, Callable]:
    """POT's simplex on all arcs and on some; imported when it is first needed."""
    try:
        from ot.lp.emd_wrap import emd_c, emd_c_sparse
    except ImportError as exc:
        raise ImportError("emd needs POT 0.9.7 or newer: pip install 'pot>=0.9.7'") from exc
    return emd_c, emd_c_sparse


def transport(excess: Excess, size: tuple[int, int], ground: str) -> Bounds:
    """Cheapest way to move the excess of one map to where the other one has more.

    Args:
        excess: sources and targets on the grid, of which there are some.
        size: (h, w) of the grid.
        ground: "euclidean" or "l1".

    Returns:
        Cost and its bounds, in cells of the finer axis, for a mass of one.

    Raises:
        RuntimeError: the solver failed, or its bounds are further apart than rounding explains.
    """
    sources, a, targets, b, _ = excess
    centres = blocks(size, 0)[1]
    x, y = centres.take(sources, axis=1), centres.take(targets, axis=1)
    if len(a) * len(b) > SMALL:
        numbers, centres = blocks(size, 1)
        count = centres.shape[1]
        summed = _summed(numbers.take(sources), a, count) - _summed(numbers.take(targets), b, count)
        plan = _on_some_arcs(a, b, x, y, ground, _coarse(summed, 1, size, ground), ROUNDS)
    else:
        plan = _on_all_arcs(a, b, between(x, y, ground))
    upper = plan.cost + plan.missed * diameter(size, ground)
    lower = min(plan.lower, plan.cost)
    if not upper - lower <= CERTAIN * upper:
        raise RuntimeError(
            f"the network simplex left a gap for {len(a)} sources and {len(b)} targets: the cost is"
            f" {plan.cost!r} cells, and no less than {lower!r} and no more than {upper!r}"
        )
    return Bounds(plan.cost, lower, upper)


def _coarse(signed: Array, level: int, size: tuple[int, int], ground: str) -> _Potentials | None:
    """Potentials of the masses of blocks of a level; None where they cancel."""
    sources, targets = np.flatnonzero(signed > CANCELLED), np.flatnonzero(signed < -CANCELLED)
    if not (len(sources) and len(targets)):
        return None
    a, b = signed[sources], -signed[targets]
    a /= a.sum()
    b /= b.sum()
    centres = blocks(size, level)[1]
    x, y = centres.take(sources, axis=1), centres.take(targets, axis=1)
    if len(a) * len(b) > SMALL:
        numbers, centres = blocks(size, level + 1)
        summed = _summed(numbers, signed, centres.shape[1])
        plan = _on_some_arcs(a, b, x, y, ground, _coarse(summed, level + 1, size, ground), 1)
    else:
        plan = _on_all_arcs(a, b, between(x, y, ground), False)
    return _Potentials(x, plan.u, y, plan.v)


def _summed(numbers: Cells, masses: Array, count: int) -> Array:
    return np.asarray(np.bincount(numbers, masses, count), dtype=np.float64)


def _extended(guess: _Potentials | None, points: Array, ground: str) -> Array:
    """Potentials at targets, (m,): halfway between the largest and the smallest 1-Lipschitz function."""
    if guess is None:
        return np.zeros(points.shape[1])
    ends = np.concatenate([guess.x, guess.y], axis=1).astype(np.float32)
    lengths = between(points.astype(np.float32), ends, ground)
    smallest = (guess.u.astype(np.float32) - lengths[:, : len(guess.u)]).max(axis=1)
    largest = (lengths[:, len(guess.u) :] - guess.v.astype(np.float32)).min(axis=1)
    return -(largest + smallest).astype(np.float64) / 2


def _on_all_arcs(a: Array, b: Array, costs: Array, certified: bool = True) -> _Plan:
    """Optimal plan for masses a (n,) and b (m,); only its potentials where it need not be certified."""
    if 1 in costs.shape:
        u, v = (np.zeros(1), costs[0]) if len(a) == 1 else (costs[:, 0], np.zeros(1))
        cost = _dual(a, b, u, v)
        return _Plan(cost, cost, 0.0, u, v)
    u = costs.min(axis=1)
    reduced = costs - u[:, None]
    v = reduced.min(axis=0)
    reduced -= v
    flows, _, more_u, more_v, code = solvers()[0](a, b, reduced, PIVOTS, 1)
    _check(code)
    u, v = u + more_u, v + more_v
    if not certified:
        return _Plan(np.nan, np.nan, np.nan, u, v)
    lower = _dual(a, b, u, (costs - u[:, None]).min(axis=0))
    missed = np.abs(flows.sum(axis=1) - a).sum() + np.abs(flows.sum(axis=0) - b).sum()
    flows *= costs
    return _Plan(float(flows.sum()), lower, missed / 2, u, v)


def _on_some_arcs(
    a: Array, b: Array, x: Array, y: Array, ground: str, guess: _Potentials | None, rounds: int
) -> _Plan:
    """Plan for masses a (n,) at x and b (m,) at y, optimal unless `rounds` is 1, and then only potentials.

    What is solved are the costs less the potentials that are known, which moves the optimum by a constant:
    the simplex begins with arcs that are the cheapest of their cells.
    """
    solve = solvers()[1]
    field = Field(x, y, ground)
    u, v, near = field.begin(_extended(guess, y, ground))
    more = field.priced(*_north_west(a, b), u, v)
    near = Arcs(*(np.concatenate(both) for both in zip(near, more, strict=True)))
    for _ in range(rounds):
        i, j, flows, _, more_u, more_v, code = solve(
            a, b, near.i.view(np.uint64), near.j.view(np.uint64), near.prices, PIVOTS
        )
        _check(code)
        u, v = u + more_u, v + more_v
        if rounds == 1:
            break
        i, j = i.view(np.int64), j.view(np.int64)
        cost = float((flows * field.costs(i, j)).sum())
        excess, nearby = field.check(u, v, REACH)
        lower = _dual(a, b, u, v + excess)
        if cost - lower <= GAP * cost:
            missed = np.abs(np.bincount(i, flows, len(a)) - a).sum()
            missed += np.abs(np.bincount(j, flows, len(b)) - b).sum()
            return _Plan(cost, lower, missed / 2, u, v)
        near = nearby()  # the arcs of the plan, at 0, are among them
    if rounds == 1:
        return _Plan(np.nan, np.nan, np.nan, u, v)
    return _on_all_arcs(a, b, between(x, y, ground))


def _dual(a: Array, b: Array, u: Array, v: Array) -> float:
    return float((a * u).sum() + (b * v).sum())


def _north_west(a: Array, b: Array) -> tuple[Cells, Cells]:
    """Arcs of some plan, so that there is one."""
    ends_a, ends_b = a.cumsum(), b.cumsum()
    ends = np.sort(np.concatenate([ends_a, ends_b]))
    middles = ends.copy()
    middles[1:] += ends[:-1]
    middles /= 2
    i = np.minimum(np.searchsorted(ends_a, middles), len(a) - 1)
    return i, np.minimum(np.searchsorted(ends_b, middles), len(b) - 1)


def _check(code: int) -> None:
    if code != OPTIMAL:
        reason = {
            0: "no plan meets both marginals",
            2: "the costs are unbounded",
            3: f"{PIVOTS} pivots were not enough",
        }
        raise RuntimeError(f"the network simplex failed: {reason.get(code, f'code {code}')}")

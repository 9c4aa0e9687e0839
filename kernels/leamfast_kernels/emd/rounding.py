"""Certificates for the 1-Wasserstein distance of pairs of maps: a lower and an upper bound, in float64.

    excess = p / sum p - q / sum q;   a = its positive part on the sources,   b = its negative on the sinks
    lower  = sum a phi + sum b psi,      phi(x) = min_y c(x, y) - psi(y)                (Kantorovich's dual)
    upper  = sum_xy K c + sum_xy r s c / sum r,   K: a plan cut to its marginals, r and s: what they lack

Mass that two maps share stays where it is, which is optimal for a metric c; what is left has each pixel on
one side at most, so a pair of n pixels needs n * n / 4 costs and not n * n. Any potentials and any plan give
valid bounds; good ones give narrow ones. Everything is float64 and in blocks of pairs.

Reference: Altschuler, Weed, Rigollet, Near-linear time approximation algorithms for optimal transport via
Sinkhorn iteration, NeurIPS 2017, algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from leamfast_kernels.tuning import SINKHORN_BLOCK

__all__ = ["DIAMETERS", "Block", "Sides", "blocks", "certificates", "excess_of", "margin", "sides_of"]

DIAMETERS = {"euclidean": math.sqrt(2), "l1": 2.0}
"""Ground distance -> what no two points of the unit square exceed."""

LARGEST_EXPONENT = 300.0  # of an entry of a plan; far from convergence it could be infinite


@dataclass(frozen=True)
class Sides:
    """Pixels of pairs by their side.

    Attributes:
        order: pixels, sources first, then sinks, then those without excess, shape (N, h * w), int64.
        sources: how many, shape (N,), int32.
        sinks: how many, shape (N,), int32.
    """

    order: Tensor
    sources: Tensor
    sinks: Tensor


@dataclass(frozen=True)
class Block:
    """Some pairs, padded to the most sources n and sinks m of one of them.

    Attributes:
        rows: of the pairs, (B,).
        sources: pixels, (B, n).
        sinks: pixels, (B, m).
        supply: mass of the sources, (B, n), zero for padding.
        demand: mass of the sinks, (B, m), zero for padding.
        cost: ground distances, (B, n, m), units of the image side.
    """

    rows: Tensor
    sources: Tensor
    sinks: Tensor
    supply: Tensor
    demand: Tensor
    cost: Tensor


def excess_of(p: Tensor, q: Tensor) -> Tensor:
    """The excess of maps (N, h, w), float64; NaN for pairs with a map that is no distribution."""
    shares = []
    for maps in (p, q):
        usable = (torch.isfinite(maps) & (maps >= 0)).flatten(1).all(dim=1)
        values = maps.double()
        sums = values.sum(dim=(1, 2))
        usable &= (sums > 0) & torch.isfinite(sums)
        shares.append((values / sums[:, None, None]).masked_fill(~usable[:, None, None], torch.nan))
    return shares[0] - shares[1]


def sides_of(excess: Tensor) -> Sides:
    """Sources and sinks of (N, h, w); neither where the excess is NaN."""
    values = excess.flatten(1)
    source, sink = values > 0, values < 0
    order = torch.where(source, 0, torch.where(sink, 1, 2)).to(torch.int8).argsort(dim=1, stable=True)
    return Sides(order, source.sum(dim=1, dtype=torch.int32), sink.sum(dim=1, dtype=torch.int32))


def blocks(excess: Tensor, ground: str, dtype: torch.dtype, block: int = SINKHORN_BLOCK) -> Iterator[Block]:
    """All pairs that have mass to move, at most `block` costs at a time (or one pair)."""
    sides = sides_of(excess)
    # Pairs alike in size share a block, so that little of it is padding. The only wait for the device.
    # Where rounding leaves one side empty, what it leaves on the other is less than the margin.
    largest = torch.maximum(sides.sources, sides.sinks) * (sides.sources > 0) * (sides.sinks > 0)
    by_size = largest.argsort(stable=True)
    counts = torch.stack([sides.sources[by_size], sides.sinks[by_size]]).tolist()
    start, sources, sinks = 0, 0, 0
    for stop, (more_sources, more_sinks) in enumerate(zip(*counts, strict=True)):
        if more_sources == 0 or more_sinks == 0:
            continue
        wider = max(sources, more_sources), max(sinks, more_sinks)
        if sources and (stop + 1 - start) * wider[0] * wider[1] > block:
            yield _block(excess, sides, by_size[start:stop], sources, sinks, ground, dtype)
            sources, wider = 0, (more_sources, more_sinks)
        if not sources:
            start = stop
        sources, sinks = wider
    if sources:
        yield _block(excess, sides, by_size[start:], sources, sinks, ground, dtype)


def _block(
    excess: Tensor, sides: Sides, rows: Tensor, sources: int, sinks: int, ground: str, dtype: torch.dtype
) -> Block:
    order, values = sides.order[rows], excess.flatten(1)[rows]
    here, there = sides.sources[rows, None], sides.sinks[rows, None]
    of_source = order[:, :sources]
    at_sink = torch.arange(sinks, device=order.device)
    of_sink = order.gather(1, (here + at_sink).clamp(max=order.shape[1] - 1))
    supply, demand = values.gather(1, of_source).abs(), values.gather(1, of_sink).abs()
    supply = supply.masked_fill(torch.arange(sources, device=order.device) >= here, 0.0)
    demand = demand.masked_fill(at_sink >= there, 0.0)
    cost = _distances(of_source, of_sink, excess.shape[1], excess.shape[2], ground, dtype)
    return Block(rows, of_source, of_sink, supply.to(dtype), demand.to(dtype), cost)


def _distances(
    sources: Tensor, sinks: Tensor, height: int, width: int, ground: str, dtype: torch.dtype
) -> Tensor:
    # Whole pixels are subtracted first: the difference is exact, and each part is rounded once.
    down = (sources // width).to(dtype)[:, :, None] - (sinks // width).to(dtype)[:, None, :]
    right = (sources % width).to(dtype)[:, :, None] - (sinks % width).to(dtype)[:, None, :]
    down.div_(height)
    right.div_(width)
    return down.abs_().add_(right.abs_()) if ground == "l1" else down.hypot_(right)


def margin(pixels: int, ground: str) -> float:
    """What rounding can add to a lower bound of `certificates` or take from an upper one, at most.

    With n pixels, u = 2^-53 and D the diameter, to first order in u; sums of n terms in any order are off by
    (n - 1) u times the sum of their magnitudes.

    Masses. The sum of a map is off by (n - 1) u of itself, a share by n u of itself, the difference of two by
    u of both: the excess x and the true p / sum p - q / sum q differ by 2 (n + 1) u in total variation.

    Costs. A difference of pixels is exact, its quotient off by u of itself, their root or sum by 4 u of
    itself (hypot on a GPU is right to 2 units in the last place): c is off by 5 u D.

    Lower. psi is clipped to [-D, 0] with maximum 0, so that 0 <= phi <= 2 D, and -2 D <= psi' <= D for the
    transform of phi. Each is off by 5 u D for c and 2 u D for the subtraction, so phi and psi' - 7 u D are
    feasible. They extend to a potential on all pixels that c makes 1-Lipschitz and that stays within 3 D:
    2 (n + 1) u of other mass change its value by 6 (n + 1) u D. Products and sums add n u times
    sum a |phi| + sum b |psi'| <= 4 D. Together (10 n + 13) u D.

    Upper. Row sums of the cut plan K exceed a, and column sums b, by (n + 2) u of them at most, and are known
    to n u of them, so that r and s differ by (2 n + 4) u from what K really lacks. sum r and sum s then
    differ by 2 (n + 1) u + 2 (2 n + 4) u, and the product of r and s over the larger sum lacks
    that and n u more. What K and the product bring differs from x by 2 (2 n + 4 + 7 n + 10) u =
    (18 n + 28) u, from the truth by (20 n + 30) u; moving half of it costs D at most: (10 n + 15) u D. The
    costs, products and sums add (2 n + 11) u D. Together (12 n + 26) u D.

    16 (n + 4) u D covers both, and with them a rounding of each value that the caller did before, the terms
    of second order, and underflow, of 2^-1074 a term.
    """
    return 16 * (pixels + 4) * 2.0**-53 * DIAMETERS[ground]


def certificates(
    excess: Tensor, potentials: Tensor, eps: Tensor, ground: str, block: int = SINKHORN_BLOCK
) -> tuple[Tensor, Tensor]:
    """Bounds of the distance of maps from potentials of any origin: lower <= W1 <= upper.

    Args:
        excess: of `excess_of`, shape (N, h, w), float64.
        potentials: phi on the sources and psi on the sinks, shape (N, h, w), finite, units of the image side.
        eps: at which the potentials are those of Sinkhorn, shape (N,), units of the image side, positive.
        ground: "euclidean" or "l1".
        block: costs held at a time.

    Returns:
        lower and upper, shape (N,) each, float64, at least 0; NaN where the excess is.
    """
    allowance = margin(excess.shape[1] * excess.shape[2], ground)
    unknown = excess.flatten(1).isnan().any(dim=1)
    lower = torch.zeros(len(excess), dtype=torch.float64, device=excess.device)
    # Without anything to move, shares of a map are equal up to rounding.
    upper = torch.full_like(lower, allowance)
    values, eps = potentials.flatten(1).double(), eps.double()
    for part in blocks(excess, ground, torch.float64, block):
        phi, psi = values[part.rows].gather(1, part.sources), values[part.rows].gather(1, part.sinks)
        found = lower_bound(part, phi, psi, DIAMETERS[ground])
        lower[part.rows] = (found - allowance).clamp_(min=0)
        upper[part.rows] = upper_bound(part, phi, psi, eps[part.rows]) + allowance
    return lower.masked_fill_(unknown, torch.nan), upper.masked_fill_(unknown, torch.nan)


def lower_bound(part: Block, phi: Tensor, psi: Tensor, diameter: float) -> Tensor:
    """Larger one of the duals that the two potentials lead to, (B,), without the margin."""
    from_sinks = _dual(part.cost, part.supply, part.demand, psi, diameter)
    from_sources = _dual(part.cost.mT, part.demand, part.supply, phi, diameter)
    return torch.maximum(from_sinks, from_sources)


def _dual(cost: Tensor, near: Tensor, far: Tensor, potential: Tensor, diameter: float) -> Tensor:
    """Dual value after transforms of the far side's potential, and back."""
    far_potential = potential.masked_fill(far == 0, -torch.inf)
    far_potential = (far_potential - far_potential.amax(dim=1, keepdim=True)).clamp_(min=-diameter)
    far_potential = far_potential.masked_fill_(far == 0, -torch.inf)
    near_potential = (cost - far_potential[:, None, :]).amin(dim=2)
    back = near_potential.masked_fill(near == 0, -torch.inf)
    far_potential = (cost - back[:, :, None]).amin(dim=1)
    return (near * near_potential).sum(dim=1) + (far * far_potential).sum(dim=1)


def upper_bound(part: Block, phi: Tensor, psi: Tensor, eps: Tensor) -> Tensor:
    """Cost of a plan with the right marginals, (B,), without the margin."""
    plan = (phi[:, :, None] + psi[:, None, :]).sub_(part.cost).div_(eps[:, None, None])
    plan = plan.clamp_(max=LARGEST_EXPONENT).exp_().mul_(part.demand[:, None, :])
    # One more update of the sources, where their masses would cancel, and then no sink may receive too much.
    plan.mul_((part.supply / plan.sum(dim=2).clamp_(min=1e-200))[:, :, None])
    plan.mul_((part.demand / plan.sum(dim=1).clamp_(min=1e-200)).clamp_(max=1)[:, None, :])
    unsent = (part.supply - plan.sum(dim=2)).clamp_(min=0)
    lacking = (part.demand - plan.sum(dim=1)).clamp_(min=0)
    left = torch.maximum(unsent.sum(dim=1), lacking.sum(dim=1))
    # Sums of sums: `margin` counts n terms, and one over all costs would have n * n / 4.
    moved = plan.mul_(part.cost).sum(dim=2).sum(dim=1)
    spread = (part.cost * lacking[:, None, :]).sum(dim=2).mul_(unsent).sum(dim=1)
    return moved + torch.where(left > 0, spread / left.clamp(min=1e-200), 0.0)

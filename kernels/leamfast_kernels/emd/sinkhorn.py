"""Brackets of the 1-Wasserstein distance from Sinkhorn's iterations in the log domain.

    phi(x) <- phi(x) - w eps log sum_y b(y) exp((phi(x) + psi(y) - c(x, y)) / eps),   likewise psi,

over-relaxed by w, with eps halved from level to level, on the excess of one map over the other (see
`rounding`). At the end of a level a pair's bracket is estimated: the pair is left alone once it is narrow
enough, w is lowered where it became wider, and the potentials of the narrowest one are what is returned. On
a GPU a program has one pair, whose costs it makes from coordinates at every use, so that a pair that takes
long holds up no other; only potentials leave it.

Whatever the potentials are, `rounding` proves the bracket: it may be wider than wished, it is never wrong.

Reference: Cuturi, Sinkhorn distances, NeurIPS 2013; Thibault, Chizat, Dossal, Papadakis, Overrelaxed
Sinkhorn-Knopp algorithm for regularized optimal transport, Algorithms 14 (2021), for w.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from leamfast_kernels.emd.rounding import DIAMETERS, Block, blocks, certificates, excess_of
from leamfast_kernels.operators import operator
from leamfast_kernels.tuning import (
    SINKHORN_BACK_OFF,
    SINKHORN_BLOCK,
    SINKHORN_BLOCK_GPU,
    SINKHORN_COARSE,
    SINKHORN_FEW,
    SINKHORN_FINE,
    SINKHORN_FIRST,
    SINKHORN_LAST,
    SINKHORN_LEVELS,
    SINKHORN_MANY,
    SINKHORN_RELAXATION,
    SINKHORN_RELAXATION_SLOW,
    SINKHORN_SETTLED,
    SINKHORN_SLOW,
)

__all__ = ["Bracket", "sinkhorn_bracket", "sinkhorn_reference"]

LARGEST_TOTAL = 2.0**100  # further from convergence, float32 would round to zero or infinity
SPREAD = 0.5  # of the diameter, that mass without a partner is taken to move, in an estimate
SAFETY = 0.9  # share of the tolerance that the estimate, which is float32, may use


@dataclass(frozen=True)
class Bracket:
    """Bounds of distances, lower <= W1 <= upper.

    Attributes:
        lower: shape (N,), float64, units of the image side.
        upper: shape (N,), float64.
        iterations: of Sinkhorn that each pair took, shape (N,), int32.
    """

    lower: Tensor
    upper: Tensor
    iterations: Tensor


def sinkhorn_reference(
    excess: Tensor, mass: Tensor, ground: str, tolerance: float, absolute: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Potentials of pairs, as the kernel has them, computed in `dtype`.

    Args:
        excess: positive on sources, negative on sinks, either of mass 1, shape (N, h, w).
        mass: what 1 stands for, shape (N,), float64.
        ground: "euclidean" or "l1".
        tolerance: (upper - lower) / upper that is narrow enough.
        absolute: mass * (upper - lower) that is narrow enough, units of the image side.
        dtype: float32 or float64.

    Returns:
        potentials (N, h, w), phi on the sources and psi on the sinks, 0 elsewhere, float32, units of the
        image side; eps (N,) that they belong to, float32, the same units; iterations (N,), int32.
    """
    count, height, width = excess.shape
    potentials = torch.zeros((count, height * width), dtype=torch.float32, device=excess.device)
    eps = torch.full((count,), SINKHORN_FIRST / max(height, width), device=excess.device)
    iterations = torch.zeros((count,), dtype=torch.int32, device=excess.device)
    for part in blocks(excess, ground, dtype, _block_of(excess)):
        _solve(part, mass, potentials, eps, iterations, ground, tolerance, absolute, max(height, width))
    return potentials.view(count, height, width), eps, iterations


@dataclass(frozen=True)
class _State:
    """Of the pairs of a block that go on, (B, ...)."""

    phi: Tensor
    psi: Tensor
    width: Tensor
    relaxation: Tensor
    best_phi: Tensor
    best_psi: Tensor
    best_width: Tensor
    best_eps: Tensor


def _solve(
    part: Block,
    mass: Tensor,
    potentials: Tensor,
    eps: Tensor,
    iterations: Tensor,
    ground: str,
    tolerance: float,
    absolute: float,
    side: int,
) -> None:
    """Write the results of a block; pairs leave it as they become narrow enough."""
    phi, psi = torch.zeros_like(part.supply), torch.zeros_like(part.demand)
    width = torch.full_like(phi[:, 0], torch.inf)
    state = _State(phi, psi, width, torch.full_like(width, SINKHORN_RELAXATION), phi, psi, width, width)
    done = 0
    for level in range(SINKHORN_LEVELS):
        level_eps = level_pixels(level) / side
        steps = SINKHORN_FEW if level < SINKHORN_COARSE else SINKHORN_MANY
        phi, psi = _iterate(part, state, steps, level_eps)
        done += steps
        lower, upper = _estimates(part, phi, psi, level_eps, SPREAD * DIAMETERS[ground])
        enough = torch.maximum(tolerance * upper, absolute / mass[part.rows].to(upper.dtype))
        ends = upper - lower <= SAFETY * enough
        if level == SINKHORN_LEVELS - 1:
            ends.fill_(True)
        state = _judged(state, phi, psi, upper - lower, level, level_eps)
        rows = part.rows[ends]
        for place, values, masses in (
            (part.sources, state.best_phi, part.supply),
            (part.sinks, state.best_psi, part.demand),
        ):
            # Padding points at pixels of others: it is left out.
            kept = (masses[ends] > 0).nonzero(as_tuple=True)
            potentials[rows[kept[0]], place[ends][kept]] = values[ends][kept].float()
        eps[rows] = state.best_eps[ends].float()
        iterations[rows] = done
        if ends.all():
            return
        if ends.any():
            part = Block(*(getattr(part, field.name)[~ends] for field in fields(part)))
            state = _State(*(getattr(state, field.name)[~ends] for field in fields(state)))


def level_pixels(level: int) -> float:
    """Eps of a level, in pixels."""
    return max(SINKHORN_FIRST / 2**level, SINKHORN_SLOW if level < SINKHORN_FINE else SINKHORN_LAST)


def _iterate(part: Block, state: _State, steps: int, eps: float) -> tuple[Tensor, Tensor]:
    """Potentials after some steps; not relaxed in the first and the last."""
    phi, psi = state.phi, state.psi
    log_demand = part.demand.log().mul_(eps)[:, None, :]
    log_supply = part.supply.log().mul_(eps)[:, :, None]
    for step in range(steps):
        weight = torch.ones_like(state.relaxation) if step in (0, steps - 1) else state.relaxation
        weight = eps * weight[:, None]
        terms = phi[:, :, None] + (psi[:, None, :] + log_demand) - part.cost
        phi = phi - weight * _log_total(terms, 2, eps)
        terms = (phi[:, :, None] + log_supply) + psi[:, None, :] - part.cost
        psi = psi - weight * _log_total(terms, 1, eps)
    return phi, psi


def _log_total(terms: Tensor, axis: int, eps: float) -> Tensor:
    total = terms.div_(eps).exp_().sum(dim=axis)
    return total.clamp_(1 / LARGEST_TOTAL, LARGEST_TOTAL).log_()


def _judged(state: _State, phi: Tensor, psi: Tensor, width: Tensor, level: int, eps: float) -> _State:
    """The state after a level that left a bracket of this width."""
    better = width < state.best_width
    usual = SINKHORN_RELAXATION if level + 1 < SINKHORN_SETTLED else SINKHORN_RELAXATION_SLOW
    lowered = 1 + SINKHORN_BACK_OFF * (state.relaxation - 1)
    return _State(
        phi,
        psi,
        width,
        torch.where(width > state.width, lowered, usual),
        torch.where(better[:, None], phi, state.best_phi),
        torch.where(better[:, None], psi, state.best_psi),
        torch.where(better, width, state.best_width),
        torch.where(better, eps, state.best_eps),
    )


def _estimates(part: Block, phi: Tensor, psi: Tensor, eps: float, distance: float) -> tuple[Tensor, Tensor]:
    """About a lower and an upper bound, (B,), of pairs of mass 1, right after psi was updated without w."""
    plan = (phi[:, :, None] + psi[:, None, :]).sub_(part.cost).div_(eps).exp_()
    plan.mul_(part.demand[:, None, :])
    astray = ((plan.sum(dim=2) - 1).abs_() * part.supply).sum(dim=1) / 2
    moved = (plan.mul_(part.cost).sum(dim=2) * part.supply).sum(dim=1)
    best = (part.cost - psi.masked_fill(part.demand == 0, -torch.inf)[:, None, :]).amin(dim=2)
    lower = (best * part.supply).sum(dim=1) + (psi * part.demand).sum(dim=1)
    return lower, moved + distance * astray


def _block_of(excess: Tensor) -> int:
    return SINKHORN_BLOCK_GPU if excess.is_cuda else SINKHORN_BLOCK


def _potentials_in_blocks(
    excess: Tensor, mass: Tensor, ground: str, tolerance: float, absolute: float
) -> tuple[Tensor, Tensor, Tensor]:
    return sinkhorn_reference(excess, mass, ground, tolerance, absolute, torch.float32)


def _potentials_cuda(
    excess: Tensor, mass: Tensor, ground: str, tolerance: float, absolute: float
) -> tuple[Tensor, Tensor, Tensor]:
    from leamfast_kernels.gpu.sinkhorn import launch_sinkhorn

    return launch_sinkhorn(excess, mass, ground, tolerance, absolute)


def _potentials_fake(
    excess: Tensor, mass: Tensor, ground: str, tolerance: float, absolute: float
) -> tuple[Tensor, Tensor, Tensor]:
    count = excess.shape[0]
    return (
        excess.new_empty(excess.shape, dtype=torch.float32),
        excess.new_empty((count,), dtype=torch.float32),
        excess.new_empty((count,), dtype=torch.int32),
    )


_potentials = operator(
    "sinkhorn(Tensor excess, Tensor mass, str ground, float tolerance, float absolute)"
    " -> (Tensor, Tensor, Tensor)",
    _potentials_in_blocks,
    _potentials_cuda,
    _potentials_fake,
)


def sinkhorn_bracket(
    p: Tensor, q: Tensor, ground: str = "euclidean", tolerance: float = 0.01, absolute: float = 0.0005
) -> Bracket:
    """Proved bounds of the 1-Wasserstein distance of maps: lower <= W1(p / sum p, q / sum q) <= upper.

    The distance is between the centres of pixels of the unit square. Bounds are those of `certificates`:
    float64, with an allowance for rounding that is proved there (2e-12 at 28x28). Iterations end where
    (upper - lower) / upper is estimated to be within the tolerance, upper - lower within the absolute one,
    or the schedule ends; a bracket that is wider than wished is returned as it is.

    Args:
        p: maps, shape (N, h, w), float32 or float64, values at least 0; each is divided by its sum.
        q: maps, shape, dtype and device of `p`.
        ground: distance between pixels, "euclidean" or "l1". Squared ones are no metrics: mass that maps
            share could not be left out.
        tolerance: wished (upper - lower) / upper.
        absolute: wished upper - lower, units of the image side; either of the two is enough.

    Returns:
        A bracket of each pair, row by row. [0, 0] for maps that are equal to the bit; NaN where a map is
        zero, or holds a NaN, an infinity or a negative value: such pairs are the caller's to count.

    Raises:
        TypeError: a map is no tensor of float32 or float64.
        ValueError: shapes, dtypes or devices differ, or another argument is out of range.

    Reference: Altschuler, Weed, Rigollet, NeurIPS 2017; see `rounding` and `sinkhorn`.

    >>> p = torch.tensor([[[1.0, 0.0]]])
    >>> found = sinkhorn_bracket(p, p.flip(2))
    >>> [round(float(bound), 6) for bound in (found.lower, found.upper)]
    [0.5, 0.5]
    """
    _check(p, q, ground, tolerance, absolute)
    with torch.no_grad():
        excess = excess_of(p, q)
        mass = excess.clamp(min=0).sum(dim=(1, 2))
        # Sums of the sides differ in their last bits; each is brought to 1.
        demand = excess.clamp(max=0).sum(dim=(1, 2)).neg_()
        unit = excess / torch.where(excess > 0, mass[:, None, None], demand[:, None, None]).clamp_(min=1e-300)
        potentials, eps, iterations = _potentials(unit, mass, ground, float(tolerance), float(absolute))
        lower, upper = certificates(excess, potentials, eps, ground, _block_of(excess))
        same = (p == q).flatten(1).all(dim=1) & ~upper.isnan()
        return Bracket(lower, upper.masked_fill_(same, 0.0), iterations)


def _check(p: Tensor, q: Tensor, ground: str, tolerance: float, absolute: float) -> None:
    for name, maps in (("p", p), ("q", q)):
        if not isinstance(maps, Tensor) or maps.dtype not in (torch.float32, torch.float64):
            got = maps.dtype if isinstance(maps, Tensor) else type(maps).__name__
            raise TypeError(f"{name} must be a float32 or float64 tensor, got {got}")
    if p.dim() != 3 or 0 in p.shape[1:]:
        raise ValueError(f"p must have shape (N, h, w) with h and w at least 1, got {tuple(p.shape)}")
    for what in ("shape", "dtype", "device"):
        if getattr(p, what) != getattr(q, what):
            raise ValueError(f"q must have the {what} of p, {getattr(p, what)}, got {getattr(q, what)}")
    if ground not in DIAMETERS:
        raise ValueError(
            f'ground must be "euclidean" or "l1", metrics, for which shared mass can stay, got {ground!r}'
        )
    for name, value in (("tolerance", tolerance), ("absolute", absolute)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")

"""Sinkhorn's iterations on a GPU: one program a pair, from the coarsest eps to its own last one.

Coordinates, logarithms of masses and potentials of a pair are some 16 KB, which stay in the first cache of
the processor that runs its program; costs are made from coordinates at every use and never stored. A tile of
ROWS x COLUMNS terms keeps a sum in each element, added up along the columns once, after all of them.
Potentials start at zero and every update leaves exponents near zero, so that no maximum is taken out: a sum
that does leave the range is clipped, and later updates bring it back. Bound by the special function units:
one power of two a term, and one root for Euclidean distances. No product goes through a tensor core, whose
TF32 would round coordinates.

A program ends with its pair, and the next pair takes its place: none waits for the slowest.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from leamfast_kernels.emd import sinkhorn as iterations_of
from leamfast_kernels.emd.rounding import DIAMETERS, sides_of
from leamfast_kernels.tuning import (
    SINKHORN_BACK_OFF,
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
    SINKHORN_TILE,
)

__all__ = ["launch_sinkhorn", "sinkhorn_kernel"]

FIRST = tl.constexpr(SINKHORN_FIRST)
SLOW = tl.constexpr(SINKHORN_SLOW)
LAST = tl.constexpr(SINKHORN_LAST)
FINE = tl.constexpr(SINKHORN_FINE)
LEVELS = tl.constexpr(SINKHORN_LEVELS)
COARSE = tl.constexpr(SINKHORN_COARSE)
FEW = tl.constexpr(SINKHORN_FEW)
MANY = tl.constexpr(SINKHORN_MANY)
RELAXATION = tl.constexpr(SINKHORN_RELAXATION)
RELAXATION_SLOW = tl.constexpr(SINKHORN_RELAXATION_SLOW)
SETTLED = tl.constexpr(SINKHORN_SETTLED)
BACK_OFF = tl.constexpr(SINKHORN_BACK_OFF)
LARGEST_TOTAL = tl.constexpr(iterations_of.LARGEST_TOTAL)
SPREAD = tl.constexpr(iterations_of.SPREAD * DIAMETERS["euclidean"])
SPREAD_L1 = tl.constexpr(iterations_of.SPREAD * DIAMETERS["l1"])
SAFETY = tl.constexpr(iterations_of.SAFETY)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _distance(y, x, other_y, other_x, L1: tl.constexpr):
    """Ground distances of rows from columns, in the units of the coordinates."""
    down = y[:, None] - other_y[None, :]
    right = x[:, None] - other_x[None, :]
    if L1:
        return tl.abs(down) + tl.abs(right)
    return tl.sqrt(down * down + right * right)


@triton.jit
def _update(
    p_y, p_x, p_log, p_potential, begin, end, other_begin, other_end, scale, relaxation,
    L1: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Update the potentials of one side; `scale` turns the unit of costs into bits of an exponent."""
    for start in range(begin, end, ROWS):
        row = start + tl.arange(0, ROWS)
        m_row = row < end
        y = tl.load(p_y + row, mask=m_row, other=0.0) * scale
        x = tl.load(p_x + row, mask=m_row, other=0.0) * scale
        own = tl.load(p_potential + row, mask=m_row, other=0.0) * scale
        terms = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        for other_start in range(other_begin, other_end, COLUMNS):
            column = other_start + tl.arange(0, COLUMNS)
            m_column = column < other_end
            other_y = tl.load(p_y + column, mask=m_column, other=0.0) * scale
            other_x = tl.load(p_x + column, mask=m_column, other=0.0) * scale
            other = tl.load(p_potential + column, mask=m_column, other=0.0) * scale
            other += tl.load(p_log + column, mask=m_column, other=float("-inf"))
            cost = _distance(y, x, other_y, other_x, L1)
            terms += tl.exp2(own[:, None] + other[None, :] - cost)
        total = tl.minimum(tl.maximum(tl.sum(terms, axis=1), 1 / LARGEST_TOTAL), LARGEST_TOTAL)
        # Threads share the potentials of a row: all have read them before one writes.
        tl.debug_barrier()
        tl.store(p_potential + row, (own - relaxation * tl.log2(total)) / scale, mask=m_row)


@triton.jit
def _bounds(
    p_y, p_x, p_log, p_potential, sources, end, scale,
    L1: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Estimates of a lower and an upper bound, of a pair of mass 1, right after the sinks' update."""
    lower = tl.zeros((ROWS,), dtype=tl.float32)
    upper = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, sources, ROWS):
        row = start + tl.arange(0, ROWS)
        m_row = row < sources
        y = tl.load(p_y + row, mask=m_row, other=0.0)
        x = tl.load(p_x + row, mask=m_row, other=0.0)
        own = tl.load(p_potential + row, mask=m_row, other=0.0)
        supply = tl.exp2(tl.load(p_log + row, mask=m_row, other=float("-inf")))
        sent = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        moved = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        best = tl.full((ROWS, COLUMNS), float("inf"), dtype=tl.float32)
        for other_start in range(sources, end, COLUMNS):
            column = other_start + tl.arange(0, COLUMNS)
            m_column = column < end
            other_y = tl.load(p_y + column, mask=m_column, other=0.0)
            other_x = tl.load(p_x + column, mask=m_column, other=0.0)
            other = tl.load(p_potential + column, mask=m_column, other=float("-inf"))
            log_demand = tl.load(p_log + column, mask=m_column, other=0.0)
            cost = _distance(y, x, other_y, other_x, L1)
            reduced = cost - other[None, :]
            share = tl.exp2((own[:, None] - reduced) * scale + log_demand[None, :])
            sent += share
            moved += share * cost
            best = tl.minimum(best, reduced)
        astray = tl.abs(tl.sum(sent, axis=1) - 1) / 2
        upper += supply * (tl.sum(moved, axis=1) + (SPREAD_L1 if L1 else SPREAD) * astray)
        lower += tl.where(m_row, supply * tl.min(best, axis=1), 0.0)
    paid = tl.zeros((COLUMNS,), dtype=tl.float32)
    for other_start in range(sources, end, COLUMNS):
        column = other_start + tl.arange(0, COLUMNS)
        m_column = column < end
        demand = tl.exp2(tl.load(p_log + column, mask=m_column, other=float("-inf")))
        paid += demand * tl.load(p_potential + column, mask=m_column, other=0.0)
    return tl.sum(lower, axis=0) + tl.sum(paid, axis=0), tl.sum(upper, axis=0)


@triton.jit(do_not_specialize=["pixels", "tolerance", "pixel"])
def sinkhorn_kernel(
    p_y, p_x, p_log, p_sources, p_sinks, p_absolute, p_potential, p_found, p_eps, p_iterations,
    pixels, tolerance, pixel,
    L1: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, COPIED: tl.constexpr,
):  # fmt: skip
    """Potentials of one pair, whose `pixels` are ordered: sources, sinks, others; `pixel` is eps of 1 pixel.

    Potentials come in as zeros. Of pairs without sources or sinks nothing is touched but their iterations.
    """
    pair = tl.program_id(0).to(tl.int64)
    p_y += pair * pixels
    p_x += pair * pixels
    p_log += pair * pixels
    p_potential += pair * pixels
    p_found += pair * pixels
    sources = tl.load(p_sources + pair)
    sinks = tl.load(p_sinks + pair)
    absolute = tl.load(p_absolute + pair)
    end = sources + sinks
    level = tl.where((sources > 0) & (sinks > 0), 0, LEVELS)
    done = 0
    # Numbers that change from level to level have a type from the start.
    halved = tl.full((), FIRST, dtype=tl.float32)
    over = tl.full((), RELAXATION, dtype=tl.float32)
    width = tl.full((), float("inf"), dtype=tl.float32)
    best = tl.full((), float("inf"), dtype=tl.float32)
    while level < LEVELS:
        eps = tl.maximum(halved, tl.where(level < FINE, SLOW, LAST)) * pixel
        scale = LOG2_E / eps
        steps = tl.where(level < COARSE, FEW, MANY)
        for half in range(2 * steps):
            relaxation = tl.where((half < 2) | (half >= 2 * steps - 2), 1.0, over)
            of_sinks = half % 2 == 1
            _update(
                p_y, p_x, p_log, p_potential,
                tl.where(of_sinks, sources, 0), tl.where(of_sinks, end, sources),
                tl.where(of_sinks, 0, sources), tl.where(of_sinks, sources, end),
                scale, relaxation, L1, ROWS, COLUMNS,
            )  # fmt: skip
            tl.debug_barrier()
        done += steps
        lower, upper = _bounds(p_y, p_x, p_log, p_potential, sources, end, scale, L1, ROWS, COLUMNS)
        now = upper - lower
        if now < best:
            for start in range(0, end, COPIED):
                place = start + tl.arange(0, COPIED)
                m_place = place < end
                tl.store(p_found + place, tl.load(p_potential + place, mask=m_place, other=0.0), mask=m_place)
            tl.store(p_eps + pair, eps)
        best = tl.minimum(best, now)
        usual = tl.where(level + 1 < SETTLED, RELAXATION, RELAXATION_SLOW)
        over = tl.where(now > width, 1 + BACK_OFF * (over - 1), usual)
        width = now
        halved = halved / 2
        narrow = now <= SAFETY * tl.maximum(tolerance * upper, absolute)
        level = tl.where(narrow, LEVELS, level + 1)
    tl.store(p_iterations + pair, done)


def launch_sinkhorn(
    excess: Tensor, mass: Tensor, ground: str, tolerance: float, absolute: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`sinkhorn_reference` of excesses (N, h, w) in float32."""
    count, height, width = excess.shape
    pixels, side = height * width, max(height, width)
    sides = sides_of(excess)
    logs = excess.flatten(1).gather(1, sides.order).abs().log2().float()
    y = (sides.order // width).float().div_(height)
    x = (sides.order % width).float().div_(width)
    values = torch.zeros((count, pixels), dtype=torch.float32, device=excess.device)
    found = torch.zeros_like(values)
    eps = torch.full((count,), SINKHORN_FIRST / side, dtype=torch.float32, device=excess.device)
    iterations = torch.empty((count,), dtype=torch.int32, device=excess.device)
    rows, columns = SINKHORN_TILE
    if count:
        sinkhorn_kernel[(count,)](
            y, x, logs, sides.sources, sides.sinks, (absolute / mass).float(), values, found,
            eps, iterations,
            pixels, tolerance, 1 / side,
            L1=ground == "l1", ROWS=rows, COLUMNS=columns, COPIED=128,
            num_warps=4, num_stages=1, enable_fp_fusion=True,
        )  # fmt: skip
    potentials = torch.empty_like(found).scatter_(1, sides.order, found)
    return potentials.view(count, height, width), eps, iterations

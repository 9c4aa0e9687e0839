"""Maps as unit vectors: roots of their shares, whose scalar products are Bhattacharyya coefficients.

    R(x) = sqrt( p(x) / sum p ) on the support of p, 0 elsewhere;   p (N, h, w) -> R (N, h * w)

A support is given by its smallest key (see `selection`), so that cutting a map is one comparison for each
pixel. Sums are float64, roots float32 (float64 for float64 maps). For `bhattacharyya` and
`bhattacharyya_matrix`; there is no public function.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leamfast_kernels import selection
from leamfast_kernels.aggregate import DTYPES, accumulator
from leamfast_kernels.operators import operator
from leamfast_kernels.support import support_reference
from leamfast_kernels.tuning import ROOTS_BLOCK


def shares_reference(maps: Tensor, percent: float | None) -> Tensor:
    """Maps (N, h, w) cut to their supports and divided by their sums, in float64.

    NaN for a map that holds a NaN, an infinity or a negative value, or whose sum is zero or no float64.
    """
    usable = (torch.isfinite(maps) & (maps >= 0)).flatten(1).all(dim=1)
    values = maps.double()
    if percent is not None:
        values = values * support_reference(maps, [percent], maps.shape[1], maps.shape[2])[:, 0]
    sums = values.sum(dim=(1, 2), keepdim=True)
    return (values / sums).masked_fill(~usable[:, None, None] | sums.isinf(), torch.nan)


def support_keys_sorted(maps: Tensor, count: int) -> Tensor:
    """Smallest key (see `selection`) of the `count` largest positive pixels of maps (N, h, w), (N,) int64.

    `NOTHING` where there is no such pixel, and for a map that holds a NaN, an infinity or a negative value.
    """
    lowest = torch.full((len(maps),), selection.NOTHING, dtype=torch.int64, device=maps.device)
    step = max(1, ROOTS_BLOCK // (maps.shape[1] * maps.shape[2]))
    for start in range(0, len(maps) if count else 0, step):
        rows = slice(start, start + step)
        block = maps[rows].flatten(1).float()
        least, most = torch.aminmax(block, dim=1)
        keys = selection.thresholds(selection.pixel_keys(block), [count])[:, 0]
        lowest[rows] = keys.masked_fill_(~((least >= 0) & (most < torch.inf)), selection.NOTHING)
    return lowest


def _support_keys_cuda(maps: Tensor, count: int) -> Tensor:
    from leamfast_kernels.gpu.bhattacharyya import LARGEST, launch_support_keys

    if maps.shape[1] * maps.shape[2] > LARGEST:
        return support_keys_sorted(maps, count)
    return launch_support_keys(maps, count)


def _support_keys_fake(maps: Tensor, count: int) -> Tensor:
    return maps.new_empty((maps.shape[0],), dtype=torch.int64)


_support_keys = operator(
    "support_keys(Tensor maps, SymInt count) -> Tensor",
    support_keys_sorted,
    _support_keys_cuda,
    _support_keys_fake,
)


def lowest_keys(maps: Tensor, percent: float | None) -> Tensor | None:
    """Smallest keys of the supports, None for whole maps."""
    if percent is None:
        return None
    lowest: Tensor = _support_keys(maps, selection.pixel_count(percent, maps.shape[1], maps.shape[2]))
    return lowest


def rows_of(values: Tensor | None, rows: slice | Tensor) -> Tensor | None:
    """Some of the values, where there are any."""
    return None if values is None else values[rows]


def _unit_roots_in_blocks(maps: Tensor, lowest: Tensor | None) -> Tensor:
    """sqrt(p / sum p) of maps (N, h, w) on their supports, (N, h * w)."""
    pixels = maps.shape[1] * maps.shape[2]
    roots = torch.empty((len(maps), pixels), dtype=accumulator(maps.dtype), device=maps.device)
    largest = torch.finfo(roots.dtype).max
    step = max(1, ROOTS_BLOCK // pixels)
    for start in range(0, len(maps), step):
        rows = slice(start, start + step)
        values = maps[rows].flatten(1)
        if lowest is not None:
            outside = selection.pixel_keys(values.float()) < lowest[rows, None]
            values = values.masked_fill(outside, 0)
        sums = values.sum(dim=1, dtype=torch.float64)
        scale = torch.where(sums < torch.inf, sums.rsqrt(), torch.nan).to(roots.dtype)
        # x / sqrt(x), as a library's square root may take ten times as long for zeros, which fill half a map;
        # clamped, so that 0 / sqrt(0) is 0. NaN, infinity and negative values become NaN here or by the
        # scale, and make all products of their map so.
        values = values.to(roots.dtype)
        torch.rsqrt(values, out=roots[rows]).clamp_(-largest, largest).mul_(values).mul_(scale[:, None])
    return roots


def _unit_roots_cuda(maps: Tensor, lowest: Tensor | None) -> Tensor:
    from leamfast_kernels.gpu.bhattacharyya import launch_unit_roots

    return launch_unit_roots(maps, lowest)


def _unit_roots_fake(maps: Tensor, lowest: Tensor | None) -> Tensor:
    return maps.new_empty((maps.shape[0], maps.shape[1] * maps.shape[2]), dtype=accumulator(maps.dtype))


unit_roots = operator(
    "unit_roots(Tensor maps, Tensor? lowest) -> Tensor",
    _unit_roots_in_blocks,
    _unit_roots_cuda,
    _unit_roots_fake,
)


def check_both(p: Tensor, q: Tensor) -> None:
    """Raise unless p and q are maps (N, h, w) and (M, h, w) of one dtype on one device."""
    for name, value in (("p", p), ("q", q)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
        if value.dtype not in DTYPES:
            raise TypeError(f"{name} must be float32, float16, bfloat16 or float64, got {value.dtype}")
        if value.dim() != 3 or 0 in value.shape[1:]:
            raise ValueError(f"{name} must have shape (N, h, w) with h, w > 0, got {tuple(value.shape)}")
    if q.shape[1:] != p.shape[1:]:
        raise ValueError(f"q must have maps of {tuple(p.shape[1:])} cells as p has, got {tuple(q.shape[1:])}")
    if q.dtype != p.dtype:
        raise ValueError(f"q must have the dtype of p, {p.dtype}, got {q.dtype}")
    if q.device != p.device:
        raise ValueError(f"q must be on the device of p, {p.device}, got {q.device}")


def check_percent(percent: float | None) -> float | None:
    """The percentage as a float, None where it asks for whole maps."""
    if percent is None:
        return None
    if isinstance(percent, bool) or not isinstance(percent, int | float):
        raise TypeError(f"percent must be None or a number in (0, 100], got {percent!r}")
    if not 0 < percent <= 100:
        raise ValueError(f"percent must lie in (0, 100], got {percent!r}")
    return None if percent == 100 else float(percent)

"""Bhattacharyya coefficient of saliency maps, pair by pair or all with all.

    BC(p, q) = sum_x sqrt(p(x) q(x)) / sqrt( sum_x p(x) * sum_x q(x) ),   p (N, h, w), q (M, h, w)

With a percentage, p and q are first cut to their supports, on which they keep their values. Pairs -> (K,): on
a GPU both sums, the roots and their products are taken in one pass over the two maps. All with all -> (N, M):
the product R_p R_q^T of the unit vectors R = sqrt(p / sum p), tile by tile; cutting, normalising and roots
are one step over the maps of a tile; beside the result, only the roots of two tiles are held.

Sums are float64 and products float32 (float64 for float64 maps), never rounded to tf32 or bfloat16.

Reference: Bhattacharyya, On a measure of divergence between two multinomial populations, Sankhya 7 (1946);
arXiv 2509.17457, which compares maps by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from leamfast_kernels import selection
from leamfast_kernels.aggregate import DTYPES, accumulator
from leamfast_kernels.support import support_reference

# Pixels of maps that are treated at a time on a CPU: 1 MiB of float32 stay in the caches of two cores.
BHATTACHARYYA_BLOCK = 256 * 1024

# Maps of a side of a tile of all pairs. Its product takes far longer than the roots before it.
BHATTACHARYYA_TILE = 2048

# Maps of a strip of a tile on the diagonal, of which only what lies right of the diagonal is computed.
BHATTACHARYYA_STRIP = 512

Tile = tuple[slice, slice, Tensor]


def bhattacharyya_reference(
    p: Tensor, q: Tensor, pairs: Tensor | None = None, percent: float | None = None
) -> Tensor:
    """BC of maps as written, in float64; same arguments and result as `bhattacharyya`."""
    shares = _normalised(p, percent), _normalised(q, percent)
    first, second = shares if pairs is None else (shares[0][pairs[:, 0]], shares[1][pairs[:, 1]])
    return (first * second).sqrt().sum(dim=(1, 2)).to(accumulator(p.dtype))


def bhattacharyya_matrix_reference(p: Tensor, q: Tensor, percent: float | None = None) -> Tensor:
    """BC of every p with every q as written, in float64, (N, M)."""
    roots = [_normalised(maps, percent).sqrt().flatten(1) for maps in (p, q)]
    return (roots[0] @ roots[1].T).to(accumulator(p.dtype))


def _normalised(maps: Tensor, percent: float | None) -> Tensor:
    """Maps in float64, cut to their supports and divided by their sums; NaN where that has no meaning."""
    usable = (torch.isfinite(maps) & (maps >= 0)).flatten(1).all(dim=1)
    values = maps.double()
    if percent is not None:
        values = values * support_reference(maps, [percent], maps.shape[1], maps.shape[2])[:, 0]
    return (values / values.sum(dim=(1, 2), keepdim=True)).masked_fill(~usable[:, None, None], torch.nan)


# Supports


def support_keys_sorted(maps: Tensor, count: int) -> Tensor:
    """Smallest key (see `selection`) of the `count` largest positive pixels of maps (N, h, w), (N,) int64.

    `NOTHING` where there is no such pixel, and for a map that holds a NaN, an infinity or a negative value.
    """
    lowest = torch.full((len(maps),), selection.NOTHING, dtype=torch.int64, device=maps.device)
    step = max(1, BHATTACHARYYA_BLOCK // (maps.shape[1] * maps.shape[2]))
    for start in range(0, len(maps) if count else 0, step):
        rows = slice(start, start + step)
        block = maps[rows].flatten(1).float()
        least, most = torch.aminmax(block, dim=1)
        keys = selection.thresholds(selection.pixel_keys(block), [count])[:, 0]
        lowest[rows] = keys.masked_fill_(~((least >= 0) & (most < torch.inf)), selection.NOTHING)
    return lowest


@torch.library.custom_op("leamfast::support_keys", mutates_args=())
def _support_keys(maps: Tensor, count: int) -> Tensor:
    return support_keys_sorted(maps, count)


@_support_keys.register_kernel("cuda")
def _support_keys_cuda(maps: Tensor, count: int) -> Tensor:
    from leamfast_kernels.gpu.bhattacharyya import LARGEST, launch_support_keys

    if maps.shape[1] * maps.shape[2] > LARGEST:
        return support_keys_sorted(maps, count)
    with torch.cuda.device(maps.device):
        return launch_support_keys(maps, count)


@_support_keys.register_fake
def _support_keys_fake(maps: Tensor, count: int) -> Tensor:
    return maps.new_empty((maps.shape[0],), dtype=torch.int64)


def _lowest(maps: Tensor, percent: float | None) -> Tensor | None:
    """Smallest keys of the supports, None for whole maps."""
    if percent is None:
        return None
    lowest: Tensor = _support_keys(maps, selection.pixel_count(percent, maps.shape[1], maps.shape[2]))
    return lowest


def _rows(values: Tensor | None, rows: slice | Tensor) -> Tensor | None:
    return None if values is None else values[rows]


# Roots


@torch.library.custom_op("leamfast::unit_roots", mutates_args=())
def _unit_roots(maps: Tensor, lowest: Tensor | None) -> Tensor:
    """sqrt(p / sum p) of maps (N, h, w) on their supports, (N, h * w)."""
    pixels = maps.shape[1] * maps.shape[2]
    roots = torch.empty((len(maps), pixels), dtype=accumulator(maps.dtype), device=maps.device)
    largest = torch.finfo(roots.dtype).max
    step = max(1, BHATTACHARYYA_BLOCK // pixels)
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


@_unit_roots.register_kernel("cuda")
def _unit_roots_cuda(maps: Tensor, lowest: Tensor | None) -> Tensor:
    from leamfast_kernels.gpu.bhattacharyya import launch_unit_roots

    with torch.cuda.device(maps.device):
        return launch_unit_roots(maps, lowest)


@_unit_roots.register_fake
def _unit_roots_fake(maps: Tensor, lowest: Tensor | None) -> Tensor:
    return maps.new_empty((maps.shape[0], maps.shape[1] * maps.shape[2]), dtype=accumulator(maps.dtype))


# Pairs


@torch.library.custom_op("leamfast::bhattacharyya", mutates_args=())
def _bhattacharyya(p: Tensor, q: Tensor, pairs: Tensor | None, percent: float | None) -> Tensor:
    _check_range(p, q, pairs)
    count = len(p) if pairs is None else len(pairs)
    found = torch.empty((count,), dtype=accumulator(p.dtype), device=p.device)
    of_p, of_q = _lowest(p, percent), _lowest(q, percent)
    step = max(1, BHATTACHARYYA_BLOCK // (p.shape[1] * p.shape[2]))
    for start in range(0, count, step):
        rows = slice(start, start + step)
        first, second = (rows, rows) if pairs is None else pairs[rows].unbind(dim=1)
        roots = _unit_roots(p[first], _rows(of_p, first))
        torch.sum(roots.mul_(_unit_roots(q[second], _rows(of_q, second))), dim=1, out=found[rows])
    return found.clamp_max_(1)


@_bhattacharyya.register_kernel("cuda")
def _bhattacharyya_cuda(p: Tensor, q: Tensor, pairs: Tensor | None, percent: float | None) -> Tensor:
    from leamfast_kernels.gpu.bhattacharyya import launch_pairs

    _check_range(p, q, pairs)
    with torch.cuda.device(p.device):
        return launch_pairs(p, q, pairs, _lowest(p, percent), _lowest(q, percent))


@_bhattacharyya.register_fake
def _bhattacharyya_fake(p: Tensor, q: Tensor, pairs: Tensor | None, percent: float | None) -> Tensor:
    return p.new_empty((p.shape[0] if pairs is None else pairs.shape[0],), dtype=accumulator(p.dtype))


def _check_range(p: Tensor, q: Tensor, pairs: Tensor | None) -> None:
    # Here and not in the public function, where a look at the values would break a compiled graph.
    if pairs is None or not len(pairs):
        return
    for maps, name, column in ((p, "p", pairs[:, 0]), (q, "q", pairs[:, 1])):
        least, most = (int(number) for number in torch.aminmax(column))
        if least < 0 or most >= len(maps):
            wrong = least if least < 0 else most
            raise ValueError(f"pairs must hold rows of {name} from 0 to {len(maps) - 1}, got {wrong}")


def bhattacharyya(p: Tensor, q: Tensor, pairs: Tensor | None = None, percent: float | None = None) -> Tensor:
    """Bhattacharyya coefficient of pairs of maps: sum of sqrt(p q), each map divided by its sum.

    The scale of a map does not count. There is no gradient.

    Args:
        p: maps, shape (N, h, w), float32, float16, bfloat16 or float64, any layout, values at least 0.
        q: maps, shape (M, h, w); dtype and device of `p`. M must be N where there are no `pairs`.
        pairs: rows of p and of q, shape (K, 2), int64, on the device of `p`; None compares row by row.
        percent: compare supports, the round(percent / 100 * h * w) largest positive pixels of each map (ties
            to the lower index, compared in float32), on which the maps keep their values; None or 100
            compares whole maps.

    Returns:
        BC, shape (K,) or (N,), in [0, 1], float32, or float64 for float64. NaN where a map is zero, its
        support is empty, or it holds a NaN, an infinity or a negative value: such pairs are the caller's to
        count.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: shapes, dtypes or devices differ, or a row or the percentage is out of range.

    Reference: Bhattacharyya, Sankhya 7 (1946); arXiv 2509.17457.

    >>> p = torch.tensor([[[1.0, 3.0]], [[0.0, 2.0]]])
    >>> bhattacharyya(p, p.flip(2))
    tensor([0.8660, 0.0000])
    >>> bhattacharyya(p, p, pairs=torch.tensor([[0, 0], [1, 0]]), percent=50)
    tensor([1.0000, 1.0000])
    """
    check_both(p, q)
    if pairs is None and len(p) != len(q):
        raise ValueError(f"q must have as many maps as p, {len(p)}, where no pairs are given, got {len(q)}")
    if pairs is not None:
        _check_pairs(p, pairs)
    found: Tensor = _bhattacharyya(p.detach(), q.detach(), pairs, check_percent(percent))
    return found


# All with all


@torch.library.custom_op("leamfast::bhattacharyya_matrix", mutates_args=())
def _matrix(p: Tensor, q: Tensor | None, percent: float | None, tile: int) -> Tensor:
    columns = len(p) if q is None else len(q)
    found = torch.empty((len(p), columns), dtype=accumulator(p.dtype), device=p.device)
    for rows, others, _ in _tiles(p, q, percent, tile, found):
        if q is None and rows != others:
            found[others, rows] = found[rows, others].T
    return found


@_matrix.register_fake
def _matrix_fake(p: Tensor, q: Tensor | None, percent: float | None, tile: int) -> Tensor:
    columns = p.shape[0] if q is None else q.shape[0]
    return p.new_empty((p.shape[0], columns), dtype=accumulator(p.dtype))


def _tiles(
    p: Tensor, q: Tensor | None, percent: float | None, tile: int, found: Tensor | None = None
) -> Iterator[Tile]:
    """Tiles of the matrix, written to `found` where given; without q, those from the diagonal upwards."""
    of_p = _lowest(p, percent)
    other, of_q = (p, of_p) if q is None else (q, _lowest(q, percent))
    for rows in _runs(len(p), tile):
        roots = _unit_roots(p[rows], _rows(of_p, rows))
        for columns in _runs(len(other), tile):
            if q is None and columns.start < rows.start:
                continue
            diagonal = q is None and columns == rows
            others = roots if diagonal else _unit_roots(other[columns], _rows(of_q, columns))
            block = roots.new_empty((len(roots), len(others))) if found is None else found[rows, columns]
            with _whole_products():
                if diagonal:
                    _square(roots, block)
                else:
                    torch.mm(roots, others.T, out=block).clamp_max_(1)
            yield rows, columns, block


def _square(roots: Tensor, out: Tensor) -> None:
    """Products of roots with themselves: strips from the diagonal on, and their mirror images."""
    for rows in _runs(len(roots), BHATTACHARYYA_STRIP):
        torch.mm(roots[rows], roots[rows.start :].T, out=out[rows, rows.start :]).clamp_max_(1)
        square = out[rows, rows]
        square.copy_(square.triu() + square.triu(1).T)  # a library may add up the halves in other orders
        out[rows.stop :, rows] = out[rows, rows.stop :].T


def _runs(count: int, tile: int) -> list[slice]:
    """Runs of at most `tile` rows, of even size."""
    step = math.ceil(count / math.ceil(count / tile)) if count else 1
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


@contextmanager
def _whole_products() -> Iterator[None]:
    """Matrix products of float32 numbers as they are while the block runs, whatever the process allows."""
    flags: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [flag.fp32_precision for flag in flags]
    if all(value in ("none", "ieee") for value in before):
        yield
        return
    # torch refuses a product where its older and its newer switch differ: turn the one that was turned.
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:
        older = "highest"
    try:
        if older != "highest":
            torch.set_float32_matmul_precision("highest")
        for flag in flags:
            flag.fp32_precision = "ieee"
        yield
    finally:
        if older != "highest":
            torch.set_float32_matmul_precision(older)
        for flag, value in zip(flags, before, strict=True):
            flag.fp32_precision = value


def bhattacharyya_matrix(
    p: Tensor, q: Tensor | None = None, percent: float | None = None, tile: int = BHATTACHARYYA_TILE
) -> Tensor:
    """Bhattacharyya coefficient of every map of p with every map of q.

    Beside the result, the roots of `tile` maps of p and of q are held. With q None or p itself, each pair is
    computed once and the result is symmetric to the bit. There is no gradient.

    Args:
        p: maps, shape (N, h, w), as for `bhattacharyya`.
        q: maps, shape (M, h, w); None stands for p.
        percent: as for `bhattacharyya`.
        tile: maps of a side of a tile; it may change the last bits.

    Returns:
        BC, shape (N, M), in [0, 1], float32, or float64 for float64; NaN as for `bhattacharyya`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: shapes, dtypes or devices differ, or the percentage or the tile is out of range.

    >>> bhattacharyya_matrix(torch.tensor([[[1.0, 3.0]], [[0.0, 2.0]], [[0.0, 0.0]]]))
    tensor([[1.0000, 0.8660,    nan],
            [0.8660, 1.0000,    nan],
            [   nan,    nan,    nan]])
    """
    other = _check_matrix(p, q, tile)
    found: Tensor = _matrix(p.detach(), other, check_percent(percent), tile)
    return found


def bhattacharyya_tiles(
    p: Tensor, q: Tensor | None = None, percent: float | None = None, tile: int = BHATTACHARYYA_TILE
) -> Iterator[Tile]:
    """The matrix of `bhattacharyya_matrix` tile by tile, so that it is never held as a whole.

    Args:
        p: maps, shape (N, h, w), as for `bhattacharyya`.
        q: maps, shape (M, h, w); None stands for p, and gives the tiles on and above the diagonal only.
        percent: as for `bhattacharyya`.
        tile: at most so many maps a side.

    Returns:
        An iterator of (rows of p, columns of q, BC of these): two slices and a tensor that stays valid.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: shapes, dtypes or devices differ, or the percentage or the tile is out of range.

    >>> maps = torch.tensor([[[1.0, 3.0]], [[0.0, 2.0]], [[4.0, 0.0]]])
    >>> [(rows.start, other.start, tuple(bc.shape)) for rows, other, bc in bhattacharyya_tiles(maps, tile=2)]
    [(0, 0, (2, 2)), (0, 2, (2, 1)), (2, 2, (1, 1))]
    """
    other = _check_matrix(p, q, tile)
    return _tiles(p.detach(), other, check_percent(percent), tile)


# Arguments


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


def _check_pairs(p: Tensor, pairs: Tensor) -> None:
    if not isinstance(pairs, Tensor) or pairs.dtype != torch.int64:
        got = pairs.dtype if isinstance(pairs, Tensor) else type(pairs).__name__
        raise TypeError(f"pairs must be an int64 tensor, got {got}")
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs must have shape (K, 2), a row of p and one of q, got {tuple(pairs.shape)}")
    if pairs.device != p.device:
        raise ValueError(f"pairs must be on the device of p, {p.device}, got {pairs.device}")


def _check_matrix(p: Tensor, q: Tensor | None, tile: int) -> Tensor | None:
    """The maps to compare with, None where they are p."""
    check_both(p, p if q is None else q)
    if isinstance(tile, bool) or not isinstance(tile, int):
        raise TypeError(f"tile must be an int, got {tile!r}")
    if tile < 1:
        raise ValueError(f"tile must be at least 1, got {tile}")
    return None if q is None or q is p else q.detach()

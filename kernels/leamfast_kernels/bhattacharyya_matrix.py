"""Bhattacharyya coefficient of all saliency maps with all.

    BC = R_p R_q^T,   R the unit vectors sqrt(p / sum p);   p (N, h, w), q (M, h, w) -> BC (N, M)

With a percentage, maps are first cut to their supports. The product is made tile by tile; cutting,
normalising and roots are one step over the maps of a tile, and beside the result only the roots of two tiles
are held. Products of float32 are float32, never rounded to tf32 or bfloat16.

Reference: Bhattacharyya, Sankhya 7 (1946); arXiv 2509.17457, which compares maps by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from leamfast_kernels.aggregate import accumulator
from leamfast_kernels.operators import operator
from leamfast_kernels.tuning import MATRIX_STRIP, MATRIX_TILE
from leamfast_kernels.unit_roots import (
    check_both,
    check_percent,
    lowest_keys,
    rows_of,
    shares_reference,
    unit_roots,
)

Tile = tuple[slice, slice, Tensor]


def bhattacharyya_matrix_reference(p: Tensor, q: Tensor, percent: float | None = None) -> Tensor:
    """BC of every p with every q as written, in float64, (N, M)."""
    roots = [shares_reference(maps, percent).sqrt().flatten(1) for maps in (p, q)]
    return (roots[0] @ roots[1].T).to(accumulator(p.dtype))


def _matrix_in_tiles(p: Tensor, q: Tensor | None, percent: float | None, tile: int) -> Tensor:
    columns = len(p) if q is None else len(q)
    found = torch.empty((len(p), columns), dtype=accumulator(p.dtype), device=p.device)
    for rows, others, _ in _tiles(p, q, percent, tile, found):
        if q is None and rows != others:
            found[others, rows] = found[rows, others].T
    return found


def _matrix_fake(p: Tensor, q: Tensor | None, percent: float | None, tile: int) -> Tensor:
    columns = p.shape[0] if q is None else q.shape[0]
    return p.new_empty((p.shape[0], columns), dtype=accumulator(p.dtype))


def _tiles(
    p: Tensor, q: Tensor | None, percent: float | None, tile: int, found: Tensor | None = None
) -> Iterator[Tile]:
    """Tiles of the matrix, written to `found` where given; without q, those from the diagonal upwards."""
    of_p = lowest_keys(p, percent)
    other, of_q = (p, of_p) if q is None else (q, lowest_keys(q, percent))
    for rows in _runs(len(p), tile):
        roots = unit_roots(p[rows], rows_of(of_p, rows))
        for columns in _runs(len(other), tile):
            if q is None and columns.start < rows.start:
                continue
            diagonal = q is None and columns == rows
            others = roots if diagonal else unit_roots(other[columns], rows_of(of_q, columns))
            block = roots.new_empty((len(roots), len(others))) if found is None else found[rows, columns]
            with _whole_products():
                if diagonal:
                    _square(roots, block)
                else:
                    torch.mm(roots, others.T, out=block).clamp_max_(1)
            yield rows, columns, block


def _square(roots: Tensor, out: Tensor) -> None:
    """Products of roots with themselves: strips from the diagonal on, and their mirror images."""
    for rows in _runs(len(roots), MATRIX_STRIP):
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
    flags: tuple[Any, ...] = (
        torch.backends.cuda.matmul,
        torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    )
    before = [flag.fp32_precision for flag in flags]
    above = torch.backends.fp32_precision  # type: ignore[attr-defined]
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
            # A value that comes from the switch above it goes on following that one.
            flag.fp32_precision = "none" if value == above else value


_matrix = operator(
    "bhattacharyya_matrix(Tensor p, Tensor? q, float? percent, SymInt tile) -> Tensor",
    _matrix_in_tiles,
    None,
    _matrix_fake,
)


def bhattacharyya_matrix(
    p: Tensor, q: Tensor | None = None, percent: float | None = None, tile: int = MATRIX_TILE
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
    found: Tensor = _matrix(p, other, check_percent(percent), tile)
    return found


def bhattacharyya_tiles(
    p: Tensor, q: Tensor | None = None, percent: float | None = None, tile: int = MATRIX_TILE
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
    return _tiles(p.detach(), None if other is None else other.detach(), check_percent(percent), tile)


def _check_matrix(p: Tensor, q: Tensor | None, tile: int) -> Tensor | None:
    """The maps to compare with, None where they are p."""
    check_both(p, p if q is None else q)
    if isinstance(tile, bool) or not isinstance(tile, int):
        raise TypeError(f"tile must be an int, got {tile!r}")
    if tile < 1:
        raise ValueError(f"tile must be at least 1, got {tile}")
    return None if q is None or q is p else q

"""Bhattacharyya coefficients on a GPU: pairs in one pass over their maps, and roots of maps for a product.

`pairs_kernel` computes ROWS pairs a program. Lanes keep sums of their own pixels in float64, which no float32
overflows, and add them up once at the end; bound by memory, 2 h w values a pair. `roots_kernel` reads a map
twice, the second time from the cache, and writes sqrt(p / sum p) once. `support_keys_kernel` holds a map in
registers and builds the bits of the support's smallest key (see `selection`) from the highest down: a bit is
set where enough pixels still lie above. Nothing is sorted.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from leamfast_kernels import selection
from leamfast_kernels.aggregate import accumulator
from leamfast_kernels.gpu.strides import image_strides, is_flat, is_wide

__all__ = [
    "LARGEST",
    "launch_pairs",
    "launch_support_keys",
    "launch_unit_roots",
    "map_blocks",
    "pairs_kernel",
    "roots_kernel",
    "support_keys_kernel",
]

LARGEST = 1 << 14  # pixels of a map that a program holds; with more, registers are spilled
TILE = 1024  # values of each map that a program reads at a time
NOTHING = tl.constexpr(selection.NOTHING)


@triton.jit
def _places(pixel, width, row, column, FLAT: tl.constexpr, WIDE: tl.constexpr):
    """Offsets of pixels within a map."""
    place = pixel.to(tl.int64) if WIDE else pixel
    if FLAT:
        return place * column
    return (place // width) * row + (place % width) * column


@triton.jit
def _keys(values, pixel, pixels):
    """Keys of pixels, as `selection.pixel_keys` has them."""
    bits = values.to(tl.float32).to(tl.int32, bitcast=True)
    return (bits.to(tl.int64) << 32) + (pixels - 1 - pixel)


@triton.jit
def _values(
    p_maps, maps, m_maps, lowest, start, pixels, width, map_stride, row, column,
    PIXELS: tl.constexpr, FLAT: tl.constexpr, WIDE: tl.constexpr,
    CUT: tl.constexpr, ACCUMULATOR: tl.constexpr,
):  # fmt: skip
    """A tile of maps from a pixel on: 0 outside of the maps and their supports, NaN for what is no mass."""
    pixel = start + tl.arange(0, PIXELS)
    mask = m_maps[:, None] & (pixel < pixels)[None, :]
    places = _places(pixel, width, row, column, FLAT, WIDE)
    values = tl.load(p_maps + maps[:, None] * map_stride + places[None, :], mask=mask, other=0.0)
    values = values.to(ACCUMULATOR)
    if CUT:
        inside = _keys(values, pixel[None, :], pixels) >= lowest[:, None]
        return tl.where(inside & mask, values, 0.0)
    return tl.where((values >= 0) & (values < float("inf")), values, float("nan"))


@triton.jit
def _root(values):
    """Correctly rounded square root; the plain one of float32 is not."""
    return tl.sqrt(values) if values.dtype == tl.float64 else tl.sqrt_rn(values)


@triton.jit
def pairs_kernel(
    p_p, p_q, p_pairs, p_lowest_p, p_lowest_q, p_found,
    pairs, rows_p, rows_q, pixels, width, pair_stride, side_stride,
    p_map, p_row, p_column, q_map, q_row, q_column,
    ROWS: tl.constexpr, PIXELS: tl.constexpr, FLAT: tl.constexpr, WIDE: tl.constexpr,
    LISTED: tl.constexpr, CUT: tl.constexpr, ACCUMULATOR: tl.constexpr,
):  # fmt: skip
    """BC of ROWS pairs, of the rows that `p_pairs` lists or row by row; cut to supports where CUT.

    NaN where a row is none of the `rows_p` or `rows_q`: nothing is read for it.
    """
    pair = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    m_found = pair < pairs
    m_pair = m_found
    if LISTED:
        of_p = tl.load(p_pairs + pair * pair_stride, mask=m_found, other=0)
        of_q = tl.load(p_pairs + pair * pair_stride + side_stride, mask=m_found, other=0)
        m_pair = m_found & (of_p >= 0) & (of_p < rows_p) & (of_q >= 0) & (of_q < rows_q)
    else:
        of_p = pair
        of_q = pair
    if CUT:
        lowest_p = tl.load(p_lowest_p + of_p, mask=m_pair, other=0)
        lowest_q = tl.load(p_lowest_q + of_q, mask=m_pair, other=0)
    else:
        lowest_p = of_p
        lowest_q = of_q
    mass_p = tl.zeros((ROWS, PIXELS), dtype=tl.float64)
    mass_q = tl.zeros((ROWS, PIXELS), dtype=tl.float64)
    common = tl.zeros((ROWS, PIXELS), dtype=tl.float64)
    for start in range(0, pixels, PIXELS):
        b_p = _values(
            p_p, of_p, m_pair, lowest_p, start, pixels, width, p_map, p_row, p_column,
            PIXELS, FLAT, WIDE, CUT, ACCUMULATOR,
        )  # fmt: skip
        b_q = _values(
            p_q, of_q, m_pair, lowest_q, start, pixels, width, q_map, q_row, q_column,
            PIXELS, FLAT, WIDE, CUT, ACCUMULATOR,
        )  # fmt: skip
        mass_p += b_p.to(tl.float64)
        mass_q += b_q.to(tl.float64)
        common += _root(b_p).to(tl.float64) * _root(b_q).to(tl.float64)
    mass = tl.sqrt(tl.sum(mass_p, axis=1)) * tl.sqrt(tl.sum(mass_q, axis=1))
    usable = m_pair & (mass > 0) & (mass < float("inf"))
    found = tl.minimum(tl.sum(common, axis=1) / tl.where(usable, mass, 1.0), 1.0)
    tl.store(p_found + pair, tl.where(usable, found, float("nan")).to(ACCUMULATOR), mask=m_found)


@triton.jit
def roots_kernel(
    p_maps, p_lowest, p_roots, maps, pixels, width, map_stride, row, column,
    ROWS: tl.constexpr, PIXELS: tl.constexpr, FLAT: tl.constexpr, WIDE: tl.constexpr,
    CUT: tl.constexpr, ACCUMULATOR: tl.constexpr,
):  # fmt: skip
    """sqrt(p / sum p) of ROWS maps; NaN for all pixels of a map where that has no meaning."""
    number = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    m_map = number < maps
    lowest = number
    if CUT:
        lowest = tl.load(p_lowest + number, mask=m_map, other=0)
    mass = tl.zeros((ROWS, PIXELS), dtype=tl.float64)
    for start in range(0, pixels, PIXELS):
        b_maps = _values(
            p_maps, number, m_map, lowest, start, pixels, width, map_stride, row, column,
            PIXELS, FLAT, WIDE, CUT, ACCUMULATOR,
        )  # fmt: skip
        mass += b_maps.to(tl.float64)
    sums = tl.sum(mass, axis=1)
    usable = (sums > 0) & (sums < float("inf"))
    scale = tl.where(usable, 1.0 / tl.sqrt(tl.where(usable, sums, 1.0)), float("nan")).to(ACCUMULATOR)
    for start in range(0, pixels, PIXELS):
        b_maps = _values(
            p_maps, number, m_map, lowest, start, pixels, width, map_stride, row, column,
            PIXELS, FLAT, WIDE, CUT, ACCUMULATOR,
        )  # fmt: skip
        pixel = start + tl.arange(0, PIXELS)
        mask = m_map[:, None] & (pixel < pixels)[None, :]
        places = number[:, None] * pixels + pixel[None, :]
        tl.store(p_roots + places, _root(b_maps) * scale[:, None], mask=mask)


@triton.jit
def support_keys_kernel(
    p_maps, p_lowest, count, pixels, width, map_stride, row, column,
    PIXELS: tl.constexpr, RANKS: tl.constexpr, FLAT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Smallest key of the `count` largest positive pixels of one map; RANKS bits tell its pixels apart."""
    number = tl.program_id(0).to(tl.int64)
    pixel = tl.arange(0, PIXELS)
    inside = pixel < pixels
    places = _places(pixel, width, row, column, FLAT, WIDE)
    values = tl.load(p_maps + number * map_stride + places, mask=inside, other=0.0).to(tl.float32)
    usable = tl.min(((values >= 0) & (values < float("inf"))).to(tl.int32), axis=0) == 1
    bits = values.to(tl.int32, bitcast=True)
    value = 0
    for step in range(31):
        higher = value | (1 << (30 - step))
        value = tl.where(tl.sum((bits >= higher).to(tl.int32), axis=0) >= count, higher, value)
    value = tl.maximum(value, 1)  # all positive pixels, where there are not enough
    wanted = count - tl.sum((bits > value).to(tl.int32), axis=0)
    ranks = tl.where(inside & (bits == value), pixels - 1 - pixel, -1)
    rank = 0
    for step in range(RANKS):
        higher = rank | (1 << (RANKS - 1 - step))
        rank = tl.where(tl.sum((ranks >= higher).to(tl.int32), axis=0) >= wanted, higher, rank)
    key = (value.to(tl.int64) << 32) + rank
    tl.store(p_lowest + number, tl.where(usable, key, NOTHING))


def map_blocks(pixels: int) -> tuple[int, int]:
    """(maps, pixels) that a program reads at a time: several maps where they are small."""
    of_map = min(TILE, max(16, triton.next_power_of_2(pixels)))
    return TILE // of_map, of_map


def launch_pairs(
    p: Tensor, q: Tensor, pairs: Tensor | None, lowest_p: Tensor | None, lowest_q: Tensor | None
) -> Tensor:
    """BC of the pairs (K, 2), or row by row, (K,); supports by their smallest keys (N,) and (M,)."""
    count = len(p) if pairs is None else len(pairs)
    found = torch.empty((count,), dtype=accumulator(p.dtype), device=p.device)
    width = p.shape[2]
    of_p, of_q = _strides(p), _strides(q)
    rows, pixels = map_blocks(p.shape[1] * width)
    if count:
        pairs_kernel[(triton.cdiv(count, rows),)](
            p, q, found if pairs is None else pairs,
            found if lowest_p is None else lowest_p, found if lowest_q is None else lowest_q, found,
            count, len(p), len(q), p.shape[1] * width, width,
            *((0, 0) if pairs is None else pairs.stride()), *of_p, *of_q,
            ROWS=rows, PIXELS=pixels, FLAT=_flat(of_p, width) and _flat(of_q, width),
            WIDE=is_wide(p[:, None]) or is_wide(q[:, None]),
            LISTED=pairs is not None, CUT=lowest_p is not None, ACCUMULATOR=_accumulator(p), num_warps=4,
            enable_fp_fusion=True,
        )  # fmt: skip
    return found


def launch_unit_roots(maps: Tensor, lowest: Tensor | None) -> Tensor:
    """sqrt(p / sum p) of maps (N, h, w), (N, h * w); supports by their smallest keys (N,)."""
    count, height, width = maps.shape
    roots = torch.empty((count, height * width), dtype=accumulator(maps.dtype), device=maps.device)
    strides = _strides(maps)
    rows, pixels = map_blocks(height * width)
    if count:
        roots_kernel[(triton.cdiv(count, rows),)](
            maps, roots if lowest is None else lowest, roots, count, height * width, width, *strides,
            ROWS=rows, PIXELS=pixels, FLAT=_flat(strides, width), WIDE=is_wide(maps[:, None]),
            CUT=lowest is not None, ACCUMULATOR=_accumulator(maps), num_warps=4,
            enable_fp_fusion=True,
        )  # fmt: skip
    return roots


def launch_support_keys(maps: Tensor, count: int) -> Tensor:
    """`support_keys_sorted` of maps of at most LARGEST pixels."""
    height, width = maps.shape[1:]
    if count == 0 or len(maps) == 0:
        return torch.full((len(maps),), selection.NOTHING, dtype=torch.int64, device=maps.device)
    lowest = torch.empty((len(maps),), dtype=torch.int64, device=maps.device)
    strides = _strides(maps)
    pixels = max(16, triton.next_power_of_2(height * width))
    support_keys_kernel[(len(maps),)](
        maps, lowest, count, height * width, width, *strides,
        PIXELS=pixels, RANKS=(height * width - 1).bit_length(), FLAT=_flat(strides, width),
        WIDE=is_wide(maps[:, None]), num_warps=min(32, max(4, pixels // 1024)), enable_fp_fusion=False,
    )  # fmt: skip
    return lowest


def _strides(maps: Tensor) -> tuple[int, int, int]:
    """Strides of (N, h, w)."""
    of_map, _, row, column = image_strides(maps[:, None])
    return of_map, row, column


def _flat(strides: tuple[int, int, int], width: int) -> bool:
    of_map, row, column = strides
    return is_flat((of_map, 0, row, column), width)


def _accumulator(maps: Tensor) -> tl.dtype:
    return tl.float64 if maps.dtype == torch.float64 else tl.float32

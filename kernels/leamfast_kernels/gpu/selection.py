"""The largest pixels of an upsampled map, found in registers; for `support`, `region_share` and `occlude`.

A program holds all pixels of one map. The bits of floats above zero order as the floats do, so the k-th
largest pixel is found by halving an interval of bits, at most 31 counts of the pixels above a value; among
the pixels of that value, the last one that belongs to the support is found by halving an interval of indices.
Nothing is sorted and nothing is written in between. Supports are nested: percents come from the largest down,
and each search begins where the one before it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from leamfast_kernels.selection import pixel_count

__all__ = [
    "bits_of",
    "cutoffs",
    "groups",
    "held",
    "held_runs",
    "in_slots",
    "in_support",
    "inside_run",
    "is_finite",
    "layout",
    "of_slot",
    "places",
    "plane",
]

SLOTS = 8  # percents of one launch


# Device code. Products and sums are fused by name, where torch fuses them: an index that is rounded once more
# changes a pixel by far more than its last place. Launches forbid any other fusion (`enable_fp_fusion`).


@triton.jit
def _plain(position, cells, scale):
    """Cells before and after pixels of a plain resize, and the weight of the second."""
    place = tl.maximum(tl.fma(position.to(tl.float32) + 0.5, scale, -0.5), 0.0)
    before = tl.minimum(place.to(tl.int32), cells - 1)
    return before, tl.minimum(before + 1, cells - 1), place - before.to(tl.float32)


@triton.jit
def _placed(position, cells, offset, step):
    """Cells before and after pixels where cell i lies at offset + i * step, and the weight of the second."""
    place = (position.to(tl.float64) - offset) / step
    place = tl.minimum(tl.maximum(place, 0.0), cells - 1.0)
    before = place.to(tl.int32)
    return before, tl.minimum(before + 1, cells - 1), (place - before.to(tl.float64)).to(tl.float32)


@triton.jit
def _between(first, second, weight):
    """torch.lerp: from the nearer end."""
    near = weight < 0.5
    return tl.fma(tl.where(near, weight, weight - 1.0), second - first, tl.where(near, first, second))


@triton.jit
def _cell(p_map, row, column, map_row, map_column, inside, WIDE: tl.constexpr):
    """Cells of a map in float32."""
    if WIDE:
        row, column = row.to(tl.int64), column.to(tl.int64)
    return tl.load(p_map + row * map_row + column * map_column, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def is_finite(p_map, map_row, map_column, cells_y, cells_x, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """1 where every cell of a map is finite in float32, else 0."""
    cells = cells_y * cells_x
    finite = tl.full((BLOCK,), 1, dtype=tl.int32)
    for start in range(0, cells, BLOCK):
        cell = start + tl.arange(0, BLOCK)
        values = _cell(p_map, cell // cells_x, cell % cells_x, map_row, map_column, cell < cells, WIDE)
        finite &= (tl.abs(values) < float("inf")).to(tl.int32)
    return tl.min(finite, axis=0)


@triton.jit
def bits_of(p_map, grid, usable, pixel, inside, CENTRES: tl.constexpr, WIDE: tl.constexpr):
    """Bits of some pixels of an upsampled map, 0 where they are not positive or the map is not `usable`.

    `inside`: which of them lie in the image.
    """
    map_row, map_column, cells_y, cells_x, _, width = grid[:6]
    scale_y, scale_x, offset_y, step_y, offset_x, step_x = grid[6:]
    # Exact below 2^16 pixels, where half a pixel outweighs the rounding; a division of integers is slow.
    y = ((pixel.to(tl.float32) + 0.5) / width).to(tl.int32)
    x = pixel - y * width
    if CENTRES:
        top, bottom, weight_y = _placed(y, cells_y, offset_y, step_y)
        left, right, weight_x = _placed(x, cells_x, offset_x, step_x)
    else:
        top, bottom, weight_y = _plain(y, cells_y, scale_y)
        left, right, weight_x = _plain(x, cells_x, scale_x)
    a = _cell(p_map, top, left, map_row, map_column, inside, WIDE)
    b = _cell(p_map, top, right, map_row, map_column, inside, WIDE)
    c = _cell(p_map, bottom, left, map_row, map_column, inside, WIDE)
    d = _cell(p_map, bottom, right, map_row, map_column, inside, WIDE)
    if CENTRES:
        values = _between(_between(a, b, weight_x), _between(c, d, weight_x), weight_y)
    else:
        above = tl.fma(1.0 - weight_x, a, weight_x * b)
        below = tl.fma(1.0 - weight_x, c, weight_x * d)
        values = tl.fma(1.0 - weight_y, above, weight_y * below)
    return tl.where(inside & (values > 0.0), values.to(tl.int32, bitcast=True), 0) * usable


@triton.jit
def inside_run(pixels, run: tl.constexpr, RUN: tl.constexpr, RUNS: tl.constexpr):
    """Which pixels of a run lie in the image: all, but in the last run. A mask of each costs registers."""
    if run < RUNS - 1:
        return tl.full((RUN,), True, dtype=tl.int1)
    else:  # noqa: RET505 - constants choose a branch only so
        return tl.arange(0, RUN) < pixels - run * RUN


@triton.jit
def held(p_map, grid, RUN: tl.constexpr, RUNS: tl.constexpr, CENTRES: tl.constexpr, WIDE: tl.constexpr):
    """Bits of the positive pixels of a map in RUNS runs, 0 for the others; and 1 where its cells are finite.

    All bits are 0 for a map that is not finite. `grid` holds the map's row stride, column stride, rows and
    columns, the pixels and the width of the image, and scale_y, scale_x, offset_y, step_y, offset_x, step_x.
    """
    usable = is_finite(p_map, grid[0], grid[1], grid[2], grid[3], RUN, WIDE)
    bits = ()
    for run in tl.static_range(RUNS):
        tl.debug_barrier()  # else the cells of many runs are read ahead, and registers spilled
        pixel = run * RUN + tl.arange(0, RUN)
        inside = inside_run(grid[4], run, RUN, RUNS)
        bits = bits + (bits_of(p_map, grid, usable, pixel, inside, CENTRES, WIDE),)  # type: ignore[assignment]
    return bits, usable


@triton.jit
def count_from(bits, least, RUN: tl.constexpr, RUNS: tl.constexpr):
    """How many pixels have bits `least` or more."""
    found = tl.zeros((RUN,), dtype=tl.int32)
    for run in tl.static_range(RUNS):
        found += (bits[run] >= least).to(tl.int32)
    return tl.sum(found, axis=0)


@triton.jit
def highest_of(bits, RUN: tl.constexpr, RUNS: tl.constexpr):
    """The largest bits."""
    highest = tl.zeros((RUN,), dtype=tl.int32)
    for run in tl.static_range(RUNS):
        highest = tl.maximum(highest, bits[run])
    return tl.max(highest, axis=0)


@triton.jit
def cutoff(bits, count, low, inside, highest, RUN: tl.constexpr, RUNS: tl.constexpr):
    """Where the support of `count` pixels ends: the bits and the index of its last pixel, and its size.

    `inside` pixels are at or above `low`: all positive ones, or at least `count`. `highest` are the largest
    bits. The last two results are `low` and `inside` for the next smaller count.
    """
    high = highest + 1
    outside = 0
    while (high - low > 1) & (inside > count):
        middle = low + (high - low) // 2
        found = count_from(bits, middle, RUN, RUNS)
        enough = found >= count
        low = tl.where(enough, middle, low)
        inside = tl.where(enough, found, inside)
        high = tl.where(enough, high, middle)
        outside = tl.where(enough, outside, found)
    first = -1
    last = RUN * RUNS - 1
    if inside > count:
        lane = tl.arange(0, RUN)
        while last - first > 1:
            middle = first + (last - first) // 2
            equal = tl.zeros((RUN,), dtype=tl.int32)
            for run in tl.static_range(RUNS):
                # No bits are -1; `bits == low` by itself would be kept in registers for the whole loop.
                wanted = tl.where(lane <= middle - run * RUN, low, -1)
                equal += (bits[run] == wanted).to(tl.int32)
            enough = tl.sum(equal, axis=0) >= count - outside
            last = tl.where(enough, middle, last)
            first = tl.where(enough, first, middle)
    least = tl.where(count > 0, low, 0x7FFFFFFF)
    return least, last, tl.minimum(inside, count), low, inside


@triton.jit
def cutoffs(bits, slots, number, RUN: tl.constexpr, RUNS: tl.constexpr):
    """`cutoff` of `number` slots: bits and index of their last pixels, and their sizes, each (8,).

    All before the first is used: what a kernel writes of one run after another needs few registers besides.
    """
    slot_of = tl.arange(0, 8)
    ends = tl.zeros((8,), dtype=tl.int32)
    lasts = tl.zeros((8,), dtype=tl.int32)
    sizes = tl.zeros((8,), dtype=tl.int32)
    low = 1
    inside = count_from(bits, low, RUN, RUNS)
    highest = highest_of(bits, RUN, RUNS)
    for slot in range(number):
        count = of_slot(slots, slot) // 8
        least, last, size, low, inside = cutoff(bits, count, low, inside, highest, RUN, RUNS)
        ends = tl.where(slot_of == slot, least, ends)
        lasts = tl.where(slot_of == slot, last, lasts)
        sizes = tl.where(slot_of == slot, size, sizes)
    return ends, lasts, sizes


@triton.jit
def in_support(bits, least, last, RUN: tl.constexpr):
    """Which pixels of a run belong to the support that ends with bits `least` at index `last` of the run."""
    return bits > tl.where(tl.arange(0, RUN) <= last, least - 1, least)


@triton.jit
def places(start, width, row, column, RUN: tl.constexpr, FLAT: tl.constexpr, WIDE: tl.constexpr):
    """Offsets of a run of pixels in an image. FLAT: its pixels lie in order; WIDE: offsets need 64 bits."""
    pixel = start + tl.arange(0, RUN)
    if FLAT:
        return pixel
    y, x = pixel // width, pixel % width
    if WIDE:
        y, x = y.to(tl.int64), x.to(tl.int64)
    return y * row + x * column


@triton.jit
def in_slots(numbers):
    """The 8 numbers of a tuple as a tensor (8,)."""
    slot = tl.arange(0, 8)
    values = tl.zeros((8,), dtype=tl.int32)
    for index in tl.static_range(8):
        values = tl.where(slot == index, numbers[index], values)
    return values


@triton.jit
def of_slot(values, slot):
    """One number of a tensor (8,)."""
    return tl.sum(tl.where(tl.arange(0, 8) == slot, values, 0), axis=0)


# What the launchers share


@dataclass(frozen=True)
class Group:
    """Percents of one launch, at most 8, from the largest count down."""

    first: int  # column of the results that slot 0 is counted from
    number: int
    wanted: tuple[int, ...]  # of each slot: pixels * 8 + column behind `first`
    whole: int  # bit c is set where column c behind `first` asks for 100 percent


def groups(percents: Sequence[float], height: int, width: int) -> Iterator[Group]:
    """Percents in the groups of a launch each."""
    for first in range(0, len(percents), SLOTS):
        part = percents[first : first + SLOTS]
        wanted = sorted(
            (pixel_count(percent, height, width) * SLOTS + column for column, percent in enumerate(part)),
            reverse=True,
        )
        whole = sum(1 << column for column, percent in enumerate(part) if percent == 100)
        yield Group(first, len(part), (*wanted, *(0,) * (SLOTS - len(part))), whole)


def held_runs(pixels: int) -> tuple[int, int, int]:
    """Pixels of a run, runs that hold all pixels, and warps of a program: 4 pixels of each run in a thread.

    Up to HELD pixels `support` spills no registers; see tests/kernels/gpu/resources.json.
    """
    warps = 4 if pixels <= 4096 else 8 if pixels <= 8192 else 16
    return 128 * warps, triton.cdiv(pixels, 128 * warps), warps


def layout(row: int, column: int, height: int, width: int) -> tuple[bool, bool]:
    """Whether the pixels of an image lie in order, and whether they or their offsets need 64 bits."""
    flat = (row == width or height == 1) and (column == 1 or width == 1)
    return flat, max((height - 1) * row + (width - 1) * column, height * width) >= 2**31


def plane(maps: Tensor, height: int, width: int, centres: Sequence[float] | None) -> dict[str, Any]:
    """Arguments that describe maps (N, h, w) and their place in images, by the names of the kernels."""
    cells_y, cells_x = maps.shape[1:]
    image, row, column = maps.stride()
    offset_y, step_y, offset_x, step_x = centres or (0.0, 1.0, 0.0, 1.0)
    return {
        "maps_image": image, "maps_row": row, "maps_column": column, "cells_y": cells_y, "cells_x": cells_x,
        "pixels": height * width, "width": width, "scale_y": cells_y / height, "scale_x": cells_x / width,
        "offset_y": offset_y, "step_y": step_y, "offset_x": offset_x, "step_x": step_x,
        "CENTRES": centres is not None,
        "WIDE_MAPS": layout(row, column, cells_y, cells_x)[1],
    }  # fmt: skip

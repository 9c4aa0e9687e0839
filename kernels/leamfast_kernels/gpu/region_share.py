"""`region_share` on a GPU: one program a map upsamples it, finds the cutoffs and counts the classes.

Supports are nested, so a pixel is in the first `depth` of them, and one histogram over (class, depth) holds
the counts of all percents. The mass at 100 percent is added in float64 by a kernel of its own. Nothing but
the shares and the sizes is written. Bound by the counts of the selection, about a dozen for each
percent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from leamfast_kernels.gpu.selection import (
    bits_of,
    cutoffs,
    groups,
    held,
    held_runs,
    in_slots,
    in_support,
    inside_run,
    is_finite,
    layout,
    of_slot,
    places,
    plane,
)

__all__ = ["launch_region_share", "mass_share_kernel", "region_share_kernel"]


@triton.jit
def _labels(
    p_labels, start, inside, width, row, column, RUN: tl.constexpr, FLAT: tl.constexpr, WIDE: tl.constexpr
):
    """Labels of a run of pixels, 0 for those that are not `inside` the image."""
    place = places(start, width, row, column, RUN, FLAT, WIDE)
    return tl.load(p_labels + place, mask=inside, other=0).to(tl.int32)


@triton.jit(do_not_specialize=["wanted", "first", "number", "columns", "whole", "classes"])
def region_share_kernel(
    p_maps,
    p_labels,
    p_shares,
    p_sizes,
    wanted,
    first,
    number,
    columns,
    whole,
    classes,
    labels_image,
    labels_row,
    labels_column,
    maps_image,
    maps_row,
    maps_column,
    cells_y,
    cells_x,
    pixels,
    width,
    scale_y,
    scale_x,
    offset_y: tl.float64,
    step_y: tl.float64,
    offset_x: tl.float64,
    step_x: tl.float64,
    RUN: tl.constexpr,
    RUNS: tl.constexpr,
    CLASSES: tl.constexpr,
    BINS: tl.constexpr,
    CENTRES: tl.constexpr,
    WIDE_MAPS: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Shares and sizes of one map, of `number` of the `columns` percents; no shares for those of `whole`.

    CLASSES and BINS: powers of two from `classes` and from `classes` * `number`. FLAT: labels of an image lie
    in order.
    """
    image = tl.program_id(0).to(tl.int64)
    p_map = p_maps + image * maps_image
    grid = (
        maps_row, maps_column, cells_y, cells_x, pixels, width, scale_y, scale_x, offset_y, step_y, offset_x,
        step_x,
    )  # fmt: skip
    bits, usable = held(p_map, grid, RUN, RUNS, CENTRES, WIDE_MAPS)
    p_labels += image * labels_image
    p_shares += (image * columns + first) * classes
    p_sizes += image * columns + first
    slots = in_slots(wanted)
    ends, lasts, sizes = cutoffs(bits, slots, number, RUN, RUNS)
    tl.store(p_sizes + slots % 8, tl.where(usable > 0, sizes, -1), mask=tl.arange(0, 8) < number)

    # A label outside the classes leaves no share of the map that could be trusted.
    counts = tl.zeros((BINS,), dtype=tl.int32)
    foreign = tl.zeros((RUN,), dtype=tl.int32)
    for run in tl.static_range(RUNS):
        inside = inside_run(pixels, run, RUN, RUNS)
        label = _labels(p_labels, run * RUN, inside, width, labels_row, labels_column, RUN, FLAT, WIDE)
        foreign |= (label >= classes).to(tl.int32)
        depth = tl.zeros((RUN,), dtype=tl.int32)
        for slot in range(number):
            chosen = in_support(bits[run], of_slot(ends, slot), of_slot(lasts, slot) - run * RUN, RUN)
            depth += chosen.to(tl.int32)
        known = (depth > 0) & (label < classes)
        counts += tl.histogram(tl.where(known, label * number + depth - 1, 0), BINS, mask=known)
    usable = usable * (1 - tl.max(foreign, axis=0))

    label_of = tl.arange(0, CLASSES)
    within = tl.zeros((CLASSES,), dtype=tl.int32)
    for back in range(number):
        slot = number - 1 - back
        within += tl.gather(counts, tl.minimum(label_of * number + slot, BINS - 1), axis=0)
        size = of_slot(sizes, slot) * usable
        share = within.to(tl.float64) / tl.maximum(size, 1).to(tl.float64)
        column = of_slot(slots, slot) % 8
        here = tl.where((whole >> column) & 1 == 0, classes, 0)
        share = tl.where(size > 0, share, float("nan"))
        tl.store(p_shares + column * classes + label_of, share, mask=label_of < here)


@triton.jit(do_not_specialize=["first", "number", "columns", "whole", "classes"])
def mass_share_kernel(
    p_maps,
    p_labels,
    p_shares,
    first,
    number,
    columns,
    whole,
    classes,
    labels_image,
    labels_row,
    labels_column,
    maps_image,
    maps_row,
    maps_column,
    cells_y,
    cells_x,
    pixels,
    width,
    scale_y,
    scale_x,
    offset_y: tl.float64,
    step_y: tl.float64,
    offset_x: tl.float64,
    step_x: tl.float64,
    PART: tl.constexpr,
    CENTRES: tl.constexpr,
    WIDE_MAPS: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Shares of the mass of one map, NaN without any, for the columns of `whole`.

    A map in float64 does not fit into registers: its pixels are made PART at a time.
    """
    image = tl.program_id(0).to(tl.int64)
    p_map = p_maps + image * maps_image
    grid = (
        maps_row, maps_column, cells_y, cells_x, pixels, width, scale_y, scale_x, offset_y, step_y, offset_x,
        step_x,
    )  # fmt: skip
    usable = is_finite(p_map, maps_row, maps_column, cells_y, cells_x, PART, WIDE_MAPS)
    p_labels += image * labels_image
    p_shares += (image * columns + first) * classes
    for first_label in range(0, classes, 32):
        label_of = first_label + tl.arange(0, 32)
        total = tl.zeros((PART,), dtype=tl.float64)
        foreign = tl.zeros((PART,), dtype=tl.int32)
        masses = tl.zeros((32, PART), dtype=tl.float64)
        for start in range(0, pixels, PART):
            pixel = start + tl.arange(0, PART)
            inside = pixel < pixels
            bits = bits_of(p_map, grid, usable, pixel, inside, CENTRES, WIDE_MAPS)
            value = bits.to(tl.float32, bitcast=True).to(tl.float64)
            label = _labels(p_labels, start, inside, width, labels_row, labels_column, PART, FLAT, WIDE)
            foreign |= (label >= classes).to(tl.int32)
            total += value
            masses += tl.where(label[None, :] == label_of[:, None], value[None, :], 0.0)
        mass = tl.sum(total, axis=0) * (1 - tl.max(foreign, axis=0)).to(tl.float64)
        share = tl.sum(masses, axis=1) / tl.where(mass > 0.0, mass, 1.0)
        share = tl.where(mass > 0.0, share, float("nan"))
        for column in range(number):
            here = tl.where((whole >> column) & 1 == 1, classes, 0)
            tl.store(p_shares + column * classes + label_of, share, mask=label_of < here)


def launch_region_share(
    maps: Tensor,
    labels: Tensor,
    percents: Sequence[float],
    height: int,
    width: int,
    centres: Sequence[float] | None,
    classes: int,
) -> tuple[Tensor, Tensor]:
    """Shares (N, P, classes) and sizes (N, P) of maps (N, h, w), any layout, of at most 25600 pixels."""
    images = maps.shape[0]
    shares = torch.empty((images, len(percents), classes), dtype=torch.float32, device=maps.device)
    sizes = torch.empty((images, len(percents)), dtype=torch.int32, device=maps.device)
    run, runs, warps = held_runs(height * width)
    image, row, column = labels.stride()
    flat, wide = layout(row, column, height, width)
    if images:
        at = plane(maps, height, width, centres) | {"FLAT": flat, "WIDE": wide, "enable_fp_fusion": False}
        for group in groups(percents, height, width):
            of_group = (group.first, group.number, len(percents), group.whole, classes, image, row, column)
            region_share_kernel[(images,)](
                maps, labels, shares, sizes, group.wanted, *of_group, **at,
                RUN=run, RUNS=runs,
                CLASSES=triton.next_power_of_2(classes),
                BINS=max(32, triton.next_power_of_2(classes * group.number)),
                num_warps=warps,
            )  # fmt: skip
            if group.whole:
                mass_share_kernel[(images,)](maps, labels, shares, *of_group, **at, PART=128, num_warps=8)
    return shares, sizes

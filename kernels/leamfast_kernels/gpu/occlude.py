"""`occlude` on a GPU: one program a map finds the cutoffs and writes all occluded images of its image.

What is written for a percent is under way while the next cutoff is searched. Bound by the writes: P * F
images for each one that is read, which stays in a cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from leamfast_kernels.gpu.selection import (
    count_from,
    cutoff,
    groups,
    held,
    held_runs,
    highest_of,
    in_slots,
    in_support,
    layout,
    of_slot,
    places,
    plane,
)

__all__ = ["launch_occlude", "occlude_kernel"]


@triton.jit(do_not_specialize=["wanted", "first", "number", "columns", "channels", "fills"])
def occlude_kernel(
    p_maps,
    p_images,
    p_fills,
    p_result,
    wanted,
    first,
    number,
    columns,
    channels,
    fills,
    images_image,
    images_channel,
    images_row,
    images_column,
    fills_fill,
    fills_image,
    fills_channel,
    fills_row,
    fills_column,
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
    CENTRES: tl.constexpr,
    WIDE_MAPS: tl.constexpr,
    FLAT_IMAGES: tl.constexpr,
    WIDE_IMAGES: tl.constexpr,
    COLOURS: tl.constexpr,
    FLAT_FILLS: tl.constexpr,
    WIDE_FILLS: tl.constexpr,
):
    """Occluded images of one image, of `number` of the `columns` percents.

    FLAT: the pixels of a channel lie in order. COLOURS: a fill has one value a channel.
    """
    image = tl.program_id(0).to(tl.int64)
    grid = (
        maps_row, maps_column, cells_y, cells_x, pixels, width, scale_y, scale_x, offset_y, step_y, offset_x,
        step_x,
    )  # fmt: skip
    bits, _ = held(p_maps + image * maps_image, grid, RUN, RUNS, CENTRES, WIDE_MAPS)
    lane = tl.arange(0, RUN)
    slots = in_slots(wanted)
    low = 1
    inside = count_from(bits, low, RUN, RUNS)
    highest = highest_of(bits, RUN, RUNS)
    for slot in tl.range(number, disable_licm=True):
        order = of_slot(slots, slot)
        least, last, _, low, inside = cutoff(bits, order // 8, low, inside, highest, RUN, RUNS)
        p_row = p_result + (image * columns + first + order % 8) * fills * channels * pixels
        for run in tl.static_range(RUNS):
            inner = lane < pixels - run * RUN
            chosen = in_support(bits[run], least, last - run * RUN, RUN)
            place = places(run * RUN, width, images_row, images_column, RUN, FLAT_IMAGES, WIDE_IMAGES)
            if not COLOURS:
                fill_place = places(run * RUN, width, fills_row, fills_column, RUN, FLAT_FILLS, WIDE_FILLS)
            p_target = p_row + run * RUN
            p_fill = p_fills + image * fills_image
            for _ in tl.range(fills, disable_licm=True):
                p_image = p_images + image * images_image
                p_instead = p_fill
                for _ in tl.range(channels, disable_licm=True):
                    value = tl.load(p_image + place, mask=inner, other=0.0)
                    if COLOURS:
                        instead = tl.load(p_instead)
                    else:
                        instead = tl.load(p_instead + fill_place, mask=inner & chosen, other=0.0)
                    tl.store(p_target + lane, tl.where(chosen, instead, value), mask=inner)
                    p_target += pixels
                    p_image += images_channel
                    p_instead += fills_channel
                p_fill += fills_fill


def launch_occlude(
    images: Tensor, maps: Tensor, percents: Sequence[float], fills: Tensor, centres: Sequence[float] | None
) -> Tensor:
    """Occluded images (N, P, F, C, H, W), of at most 25600 pixels a channel.

    images (N, C, H, W), maps (N, h, w) and fills (F, 1 or N, C, 1 or H, 1 or W), any layout.
    """
    count, channels, height, width = images.shape
    number = fills.shape[0]
    shape = (count, len(percents), number, channels, height, width)
    result = torch.empty(shape, dtype=images.dtype, device=images.device)
    run, runs, warps = held_runs(height * width)
    of_fills = fills.expand(number, count, channels, height, width).stride()
    flat, wide = layout(*images.stride()[2:], height, width)
    flat_fills, wide_fills = layout(*of_fills[3:], height, width)
    if result.numel():
        for group in groups(percents, height, width):
            occlude_kernel[(count,)](
                maps, images, fills, result, group.wanted, group.first, group.number, len(percents), channels,
                number, *images.stride(), *of_fills, **plane(maps, height, width, centres),
                RUN=run, RUNS=runs,
                FLAT_IMAGES=flat, WIDE_IMAGES=wide,
                COLOURS=fills.shape[3:] == (1, 1), FLAT_FILLS=flat_fills, WIDE_FILLS=wide_fills,
                num_warps=warps, enable_fp_fusion=False,
            )  # fmt: skip
    return result

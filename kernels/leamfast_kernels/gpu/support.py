"""`support` on a GPU: one program a map upsamples it, finds the cutoffs and writes the masks.

Bound by the counts of the selection, about a dozen for each percent; it reads the cells of a map and writes
one byte for each pixel and percent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from leamfast_kernels.gpu.selection import (
    cutoffs,
    groups,
    held,
    held_runs,
    in_slots,
    in_support,
    inside_run,
    of_slot,
    plane,
)

__all__ = ["launch_support", "support_kernel"]


@triton.jit(do_not_specialize=["wanted", "first", "number", "columns"])
def support_kernel(
    p_maps,
    p_masks,
    wanted,
    first,
    number,
    columns,
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
):
    """Masks of one map, of `number` of the `columns` percents."""
    image = tl.program_id(0).to(tl.int64)
    grid = (
        maps_row, maps_column, cells_y, cells_x, pixels, width, scale_y, scale_x, offset_y, step_y, offset_x,
        step_x,
    )  # fmt: skip
    bits, _ = held(p_maps + image * maps_image, grid, RUN, RUNS, CENTRES, WIDE_MAPS)
    lane = tl.arange(0, RUN)
    slots = in_slots(wanted)
    ends, lasts, _ = cutoffs(bits, slots, number, RUN, RUNS)
    p_masks += (image * columns + first) * pixels
    for run in tl.static_range(RUNS):
        inside = inside_run(pixels, run, RUN, RUNS)
        for slot in range(number):
            chosen = in_support(bits[run], of_slot(ends, slot), of_slot(lasts, slot) - run * RUN, RUN)
            p_mask = p_masks + (of_slot(slots, slot) % 8).to(tl.int64) * pixels
            tl.store(p_mask + run * RUN + lane, chosen.to(tl.uint8), mask=inside)


def launch_support(
    maps: Tensor, percents: Sequence[float], height: int, width: int, centres: Sequence[float] | None
) -> Tensor:
    """Masks (N, P, H, W) of maps (N, h, w), any layout, of at most 25600 pixels."""
    masks = torch.empty((maps.shape[0], len(percents), height, width), dtype=torch.bool, device=maps.device)
    run, runs, warps = held_runs(height * width)
    if maps.shape[0]:
        for group in groups(percents, height, width):
            support_kernel[(maps.shape[0],)](
                maps, masks.view(torch.uint8), group.wanted, group.first, group.number, len(percents),
                **plane(maps, height, width, centres),
                RUN=run, RUNS=runs, num_warps=warps, enable_fp_fusion=False,
            )  # fmt: skip
    return masks

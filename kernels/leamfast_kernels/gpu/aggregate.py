"""`aggregate` on a GPU: reads A and G once and writes the map once.

A program computes a run of pixels of one image. It goes over the channels in tiles of BLOCK_C x BLOCK_P and
adds up in float32 (float64 for float64), so that the value of a pixel does not depend on the batch.
Bound by memory: 2 values a pixel and channel, one product and one sum for each pair of loads.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from leamfast_kernels.gpu.strides import image_strides, is_flat, is_wide
from leamfast_kernels.tuning import aggregate_blocks

__all__ = ["aggregate_kernel", "launch_aggregate", "launch_statistics"]


@triton.jit
def aggregate_kernel(
    p_acts,
    p_grads,
    p_maps,
    p_maxima,
    p_sums,
    channels,
    pixels,
    width,
    blocks,
    acts_image,
    acts_channel,
    acts_row,
    acts_column,
    grads_image,
    grads_channel,
    grads_row,
    grads_column,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    STATISTICS: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
):
    """One run of BLOCK_P pixels of one image.

    FLAT: rows follow each other, so that a pixel lies at its flat index times the column's stride. WIDE: an
    image spans 2^31 elements or more. STATISTICS: the largest pixel and the sum of the run are written too.
    """
    program = tl.program_id(0).to(tl.int64)
    image = program // blocks
    run = program % blocks
    if not WIDE:
        run = run.to(tl.int32)
    pixel = run * BLOCK_P + tl.arange(0, BLOCK_P)
    m_pixel = pixel < pixels
    if FLAT:
        acts_place = pixel * acts_column
        grads_place = pixel * grads_column
    else:
        acts_place = (pixel // width) * acts_row + (pixel % width) * acts_column
        grads_place = (pixel // width) * grads_row + (pixel % width) * grads_column
    p_acts += image * acts_image
    p_grads += image * grads_image
    b_map = tl.zeros((BLOCK_P,), dtype=ACCUMULATOR)
    for start in range(0, channels, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        m_tile = (channel < channels)[:, None] & m_pixel[None, :]
        step = channel.to(tl.int64) if WIDE else channel
        b_acts = tl.load(p_acts + step[:, None] * acts_channel + acts_place[None, :], mask=m_tile, other=0.0)
        b_grads = tl.load(
            p_grads + step[:, None] * grads_channel + grads_place[None, :], mask=m_tile, other=0.0
        )
        b_grads = tl.maximum(b_grads.to(ACCUMULATOR), 0.0, propagate_nan=tl.PropagateNan.ALL)
        b_map += tl.sum(b_grads * b_acts.to(ACCUMULATOR), axis=0)
    b_map = tl.maximum(b_map, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(p_maps + image * pixels + pixel, b_map, mask=m_pixel)
    if STATISTICS:
        inside = tl.where(m_pixel, b_map, 0.0)
        total = tl.sum(inside, axis=0)
        largest = tl.max(inside, axis=0)
        tl.store(p_maxima + program, tl.where(total == total, largest, total))  # a maximum loses NaN
        tl.store(p_sums + program, total)


def launch_aggregate(acts: Tensor, grads: Tensor) -> Tensor:
    """Maps (N, h, w) of acts and grads (N, C, h, w) of one dtype, any layout."""
    return _launch(acts, grads, statistics=False)[0]


def launch_statistics(acts: Tensor, grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (N, h, w), and the largest pixel and the sum of each, (N,)."""
    maps, maxima, sums = _launch(acts, grads, statistics=True)
    return maps, maxima.amax(dim=1), sums.sum(dim=1)


def _launch(acts: Tensor, grads: Tensor, statistics: bool) -> tuple[Tensor, Tensor, Tensor]:
    images, channels, height, width = acts.shape
    pixels = height * width
    double = acts.dtype == torch.float64
    dtype = torch.float64 if double else torch.float32
    of_acts, of_grads = image_strides(acts), image_strides(grads)
    block_c, block_p = aggregate_blocks(channels, pixels, of_acts[1] == 1 and of_grads[1] == 1)
    blocks = triton.cdiv(pixels, block_p)
    maps = torch.empty((images, height, width), dtype=dtype, device=acts.device)
    maxima, sums = torch.empty((2, images, blocks if statistics else 0), dtype=dtype, device=acts.device)
    if images:
        aggregate_kernel[(images * blocks,)](
            acts, grads, maps, maxima, sums, channels, pixels, width, blocks, *of_acts, *of_grads,
            BLOCK_C=block_c, BLOCK_P=block_p,
            FLAT=is_flat(of_acts, width) and is_flat(of_grads, width),
            WIDE=is_wide(acts) or is_wide(grads) or pixels >= 2**31,
            STATISTICS=statistics,
            ACCUMULATOR=tl.float64 if double else tl.float32,
            num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
    return maps, maxima, sums

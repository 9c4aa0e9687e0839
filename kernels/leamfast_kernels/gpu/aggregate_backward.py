"""`aggregate_backward` on a GPU: reads A and the gradient once, writes G and the map once.

As `aggregate`: a program goes over the channels of a run of pixels of one image. Bound by memory: 3 C values
a pixel, where two passes would move 5 C.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from leamfast_kernels.gpu.strides import image_strides, is_flat, is_wide
from leamfast_kernels.tuning import aggregate_blocks

__all__ = ["aggregate_backward_kernel", "launch_aggregate_backward"]


@triton.jit
def aggregate_backward_kernel(
    p_acts,
    p_grads,
    p_out,
    p_maps,
    p_scale,
    p_shift,
    p_slope,
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
    out_image,
    out_channel,
    out_row,
    out_column,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
):
    """One run of BLOCK_P pixels of one image; FLAT and WIDE as in `aggregate_kernel`."""
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
        out_place = pixel * out_column
    else:
        acts_place = (pixel // width) * acts_row + (pixel % width) * acts_column
        grads_place = (pixel // width) * grads_row + (pixel % width) * grads_column
        out_place = (pixel // width) * out_row + (pixel % width) * out_column
    p_acts += image * acts_image
    p_grads += image * grads_image
    p_out += image * out_image
    b_map = tl.zeros((BLOCK_P,), dtype=ACCUMULATOR)
    for start in range(0, channels, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        m_channel = channel < channels
        m_tile = m_channel[:, None] & m_pixel[None, :]
        step = channel.to(tl.int64) if WIDE else channel
        scale = tl.load(p_scale + channel, mask=m_channel, other=0.0).to(ACCUMULATOR)[:, None]
        shift = tl.load(p_shift + channel, mask=m_channel, other=0.0).to(ACCUMULATOR)[:, None]
        slope = tl.load(p_slope + channel, mask=m_channel, other=0.0).to(ACCUMULATOR)[:, None]
        b_acts = tl.load(p_acts + step[:, None] * acts_channel + acts_place[None, :], mask=m_tile, other=0.0)
        b_grads = tl.load(
            p_grads + step[:, None] * grads_channel + grads_place[None, :], mask=m_tile, other=0.0
        )
        b_acts = b_acts.to(ACCUMULATOR)
        b_grads = b_grads.to(ACCUMULATOR) * scale
        b_grads = tl.where(b_acts * scale + shift > 0, b_grads, b_grads * slope)
        tl.store(p_out + step[:, None] * out_channel + out_place[None, :], b_grads, mask=m_tile)
        b_grads = tl.maximum(b_grads, 0.0, propagate_nan=tl.PropagateNan.ALL)
        b_map += tl.sum(b_grads * b_acts, axis=0)
    b_map = tl.maximum(b_map, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(p_maps + image * pixels + pixel, b_map, mask=m_pixel)


def launch_aggregate_backward(
    acts: Tensor, grads: Tensor, scale: Tensor, shift: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """Maps (N, h, w) and G (N, C, h, w) of acts and grads (N, C, h, w) of one dtype, any layout."""
    images, channels, height, width = acts.shape
    double = acts.dtype == torch.float64
    maps = torch.empty(
        (images, height, width), dtype=torch.float64 if double else torch.float32, device=acts.device
    )
    out = torch.empty_like(acts)
    of_acts, of_grads, of_out = image_strides(acts), image_strides(grads), image_strides(out)
    last = of_acts[1] == 1 and of_grads[1] == 1
    block_c, block_p = aggregate_blocks(channels, height * width, last)
    blocks = triton.cdiv(height * width, block_p)
    if images:
        aggregate_backward_kernel[(images * blocks,)](
            acts, grads, out, maps, scale.contiguous(), shift.contiguous(), slope.contiguous(),
            channels, height * width, width, blocks, *of_acts, *of_grads, *of_out,
            BLOCK_C=block_c, BLOCK_P=block_p,
            FLAT=all(is_flat(strides, width) for strides in (of_acts, of_grads, of_out)),
            WIDE=is_wide(acts) or is_wide(grads) or is_wide(out) or height * width >= 2**31,
            ACCUMULATOR=tl.float64 if double else tl.float32,
            num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
    return maps, out

"""`occlude` on a GPU: reads an image once for every channel and writes all occluded ones.

The supports come as masks of one byte a pixel; a program of its own for every run of pixels keeps far more
writes under way than the search for a support could. Bound by the writes: P * F images for each one read.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from leamfast_kernels.gpu.selection import layout, places

__all__ = ["launch_occlude", "occlude_kernel"]

RUN = 1024  # pixels of a program


@triton.jit(do_not_specialize=["percents", "channels", "fills"])
def occlude_kernel(
    p_images,
    p_masks,
    p_fills,
    p_result,
    percents,
    channels,
    fills,
    pixels,
    width,
    images_image,
    images_channel,
    images_row,
    images_column,
    fills_fill,
    fills_image,
    fills_channel,
    fills_row,
    fills_column,
    result_percent,
    result_fill,
    RUN: tl.constexpr,
    FLAT_IMAGES: tl.constexpr,
    WIDE_IMAGES: tl.constexpr,
    COLOURS: tl.constexpr,
    FLAT_FILLS: tl.constexpr,
    WIDE_FILLS: tl.constexpr,
):
    """RUN pixels of one image, for all percents and fills.

    FLAT: the pixels of a channel lie in order. WIDE: their offsets need 64 bits. COLOURS: a fill has one
    value a channel.
    """
    runs = tl.cdiv(pixels, RUN)
    program = tl.program_id(0)
    image = (program // runs).to(tl.int64)
    start = (program % runs) * RUN
    if WIDE_IMAGES:
        start = (program % runs).to(tl.int64) * RUN
    pixel = start + tl.arange(0, RUN)
    inside = pixel < pixels
    place = places(start, width, images_row, images_column, RUN, FLAT_IMAGES, WIDE_IMAGES)
    fill_place = places(start, width, fills_row, fills_column, RUN, FLAT_FILLS, WIDE_FILLS)
    p_image = p_images + image * images_image
    p_masks += image * percents * pixels
    p_result += image * percents * result_percent
    p_fills += image * fills_image
    for _ in range(channels):
        value = tl.load(p_image + place, mask=inside)
        p_fill = p_fills
        p_filled = p_result
        for _ in range(fills):
            instead = tl.load(p_fill) if COLOURS else tl.load(p_fill + fill_place, mask=inside)
            p_mask = p_masks
            p_target = p_filled
            for _ in range(percents):
                chosen = tl.load(p_mask + pixel, mask=inside) != 0
                tl.store(p_target + pixel, tl.where(chosen, instead, value), mask=inside)
                p_mask += pixels
                p_target += result_percent
            p_fill += fills_fill
            p_filled += result_fill
        p_image += images_channel
        p_fills += fills_channel
        p_result += pixels


def launch_occlude(images: Tensor, masks: Tensor, fills: Tensor) -> Tensor:
    """Occluded images (N, P, F, C, H, W) of images (N, C, H, W), any layout.

    masks (N, P, H, W) contiguous, fills (F, 1 or N, C, 1 or H, 1 or W), any layout.
    """
    count, channels, height, width = images.shape
    percents, number = masks.shape[1], fills.shape[0]
    shape = (count, percents, number, channels, height, width)
    result = torch.empty(shape, dtype=images.dtype, device=images.device)
    of_fills = fills.expand(number, count, channels, height, width).stride()
    of_images = images.stride()
    flat, wide = layout(of_images[2], of_images[3], height, width)
    flat_fills, wide_fills = layout(of_fills[3], of_fills[4], height, width)
    if result.numel():
        occlude_kernel[(count * triton.cdiv(height * width, RUN),)](
            images, masks.view(torch.uint8), fills, result, percents, channels, number, height * width, width,
            *of_images, *of_fills, result.stride(1), result.stride(2),
            RUN=RUN, FLAT_IMAGES=flat, WIDE_IMAGES=wide,
            COLOURS=fills.shape[3:] == (1, 1), FLAT_FILLS=flat_fills, WIDE_FILLS=wide_fills,
            num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
    return result

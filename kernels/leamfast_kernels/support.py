"""Support of maps: the largest positive pixels of the upsampled map, as a mask for each percent.

    S_p = the round(p / 100 * H * W) largest pixels of U(M) among those with U(M) > 0, ties to the lower index

maps M (N, h, w) -> S (N, P, H, W). Upsampling, selection and the mask are done for a block of maps at a
time; on a GPU, up to 25600 pixels, in one kernel for eight percents.

Reference: arXiv 2509.17457, which compares and occludes maps on their largest pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leamfast_kernels import selection
from leamfast_kernels.operators import operator
from leamfast_kernels.tuning import SELECTION_BLOCK
from leamfast_kernels.upsample import Centres, Size, check_centres, check_maps, check_size, resample


def support_reference(
    maps: Tensor, percents: Sequence[float], height: int, width: int, centres: Sequence[float] | None = None
) -> Tensor:
    """Support by one stable sort of every upsampled map; centres as [offset_y, step_y, offset_x, step_x]."""
    values = resample(maps.float(), height, width, centres).flatten(1)
    order = torch.sort(values, dim=1, descending=True, stable=True).indices
    places = torch.arange(height * width, device=maps.device).expand_as(order)
    place = torch.empty_like(order).scatter_(1, order, places)
    usable = (values > 0) & selection.finite(maps.float())[:, None]
    masks = [usable & (place < selection.pixel_count(percent, height, width)) for percent in percents]
    return torch.stack(masks, dim=1).unflatten(2, (height, width))


def select(
    maps: Tensor, percents: Sequence[float], height: int, width: int, centres: Sequence[float] | None
) -> Tensor:
    """`support` of checked arguments in plain torch; centres as [offset_y, step_y, offset_x, step_x]."""
    pixels = height * width
    counts = [selection.pixel_count(percent, height, width) for percent in percents]
    steps = sorted({count for count in counts if 0 < count < pixels})
    masks = torch.empty((maps.shape[0], len(counts), pixels), dtype=torch.bool, device=maps.device)
    step = max(1, SELECTION_BLOCK // pixels)
    for start in range(0, maps.shape[0], step):
        block = maps[start : start + step].float()
        values = resample(block, height, width, centres).flatten(1)
        values.masked_fill_(~selection.finite(block)[:, None], 0)
        depth = torch.zeros(values.shape, dtype=torch.int16, device=maps.device)
        if steps:
            index, number = selection.nested(values, steps)
            depth.scatter_(1, index, number.to(depth.dtype))
        for count, mask in zip(counts, masks[start : start + step].unbind(1), strict=True):
            if count in steps:
                torch.ge(depth, len(steps) - steps.index(count), out=mask)
            else:
                torch.gt(values, 0 if count else torch.inf, out=mask)
    return masks.unflatten(2, (height, width))


def _support_cuda(
    maps: Tensor, percents: list[float], height: int, width: int, centres: list[float] | None
) -> Tensor:
    if height * width > selection.HELD:
        return select(maps, percents, height, width, centres)
    from leamfast_kernels.gpu.support import launch_support

    return launch_support(maps, percents, height, width, centres)


def _support_fake(
    maps: Tensor, percents: list[float], height: int, width: int, centres: list[float] | None
) -> Tensor:
    return maps.new_empty((maps.shape[0], len(percents), height, width), dtype=torch.bool)


_support = operator(
    "support(Tensor maps, float[] percents, SymInt height, SymInt width, float[]? centres) -> Tensor",
    select,
    _support_cuda,
    _support_fake,
)


def support(maps: Tensor, percents: Sequence[float], size: Size, centres: Centres | None = None) -> Tensor:
    """Masks of the largest positive pixels of upsampled maps.

    S_p holds the round(p / 100 * H * W) largest positive pixels of the upsampled map (Python's `round`: an
    exact half goes to the even number). Equal pixels go in by lower flat index. Where fewer pixels are
    positive, S_p holds those and no more. Pixels are compared in float32; there is no gradient.

    Args:
        maps: maps, shape (N, h, w), float32, float16, bfloat16 or float64, any layout.
        percents: P percentages of the image area, each in (0, 100], in any order.
        size: side or (H, W) of the upsampled map in pixels.
        centres: place of the cells, as for `upsample`.

    Returns:
        Masks, shape (N, P, H, W), bool. All False for a map that holds a NaN or an infinity.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: `maps` is not (N, h, w) with h, w > 0, or a percent, size or step is out of range.

    >>> support(torch.tensor([[[3.0, 0.0], [3.0, 1.0]]]), [25, 100], 2).int().flatten(2)
    tensor([[[1, 0, 0, 0],
             [1, 0, 1, 1]]], dtype=torch.int32)
    """
    check_maps(maps)
    shares = selection.check_percents(percents)
    height, width = check_size(size)
    masks: Tensor = _support(maps, shares, height, width, check_centres(centres))
    return masks

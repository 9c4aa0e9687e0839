"""Images with the support of a map replaced, for several percents and fills at once.

    X'_{p,f} = fill_f on S_p, X elsewhere,   S_p the support of the map M at p percent of the image area

images X (N, C, H, W), maps M (N, h, w), fills (F, C, H, W) or (F, N, C, H, W) -> X' (N, P, F, C, H, W).
Supports and occluded images are made for a block of images at a time; on a GPU, once the masks of the
supports are there, in one kernel that reads an image once.

Reference: arXiv 2509.17457, which occludes the most important pixels; Petsiuk et al., RISE, BMVC 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leamfast_kernels import selection
from leamfast_kernels.aggregate import DTYPES
from leamfast_kernels.operators import operator
from leamfast_kernels.support import select, support_reference
from leamfast_kernels.tuning import SELECTION_BLOCK
from leamfast_kernels.upsample import Centres, check_centres, check_maps


def occlude_reference(
    images: Tensor,
    maps: Tensor,
    percents: Sequence[float],
    fills: Tensor,
    centres: Sequence[float] | None = None,
) -> Tensor:
    """One `torch.where` over the masks of `support_reference`; fills (F, 1 or N, C, 1 or H, 1 or W)."""
    masks = support_reference(maps, percents, images.shape[2], images.shape[3], centres)
    return torch.where(masks[:, :, None, None], _beside(fills, images), images[:, None, None]).contiguous()


def _beside(fills: Tensor, images: Tensor) -> Tensor:
    """Fills as (N, 1, F, C, 1 or H, 1 or W)."""
    return fills.expand(-1, images.shape[0], -1, -1, -1).transpose(0, 1)[:, None]


def _occlude_cuda(
    images: Tensor, maps: Tensor, percents: list[float], fills: Tensor, centres: list[float] | None
) -> Tensor:
    from leamfast_kernels.gpu.occlude import launch_occlude

    # One operator after the other: each has its own limits.
    masks = torch.ops.leamfast.support(maps, percents, images.shape[2], images.shape[3], centres)
    return launch_occlude(images, masks, fills)


def _in_blocks(
    images: Tensor, maps: Tensor, percents: Sequence[float], fills: Tensor, centres: Sequence[float] | None
) -> Tensor:
    count, channels, height, width = images.shape
    shape = (count, len(percents), fills.shape[0], channels, height, width)
    result = torch.empty(shape, dtype=images.dtype, device=images.device)
    beside = _beside(fills, images)
    step = max(1, SELECTION_BLOCK // (height * width))
    for start in range(0, count, step):
        rows = slice(start, start + step)
        masks = select(maps[rows], percents, height, width, centres)[:, :, None, None]
        torch.where(masks, beside[rows], images[rows, None, None], out=result[rows])
    return result


def _occlude_fake(
    images: Tensor, maps: Tensor, percents: list[float], fills: Tensor, centres: list[float] | None
) -> Tensor:
    count, *inner = images.shape
    return images.new_empty((count, len(percents), fills.shape[0], *inner))


_occlude = operator(
    "occlude(Tensor images, Tensor maps, float[] percents, Tensor fills, float[]? centres) -> Tensor",
    _in_blocks,
    _occlude_cuda,
    _occlude_fake,
)


def occlude(
    images: Tensor, maps: Tensor, percents: Sequence[float], fills: Tensor, centres: Centres | None = None
) -> Tensor:
    """Replace the support of a map in its image, for each of several percents and fills.

    The support is that of `support` at the size of the images, pixel for pixel. Where it is empty, as for a
    map that holds a NaN or an infinity, the image stays as it is. There is no gradient.

    Args:
        images: images, shape (N, C, H, W), float32, float16, bfloat16 or float64, any layout.
        maps: one map for each image, shape (N, h, w), of any of these dtypes, any layout.
        percents: P percentages of the image area, each in (0, 100], in any order.
        fills: what stands in for the support, in units and dtype of `images`: F colours (F, C, 1, 1), F
            pictures (F, C, H, W), or one for each image (F, N, C, H, W), where every axis but F may be 1.
        centres: place of the cells, as for `upsample`.

    Returns:
        Images, shape (N, P, F, C, H, W), contiguous, in the dtype of `images`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a shape, dtype or device does not fit, or a percent or step is out of range.

    Reference: arXiv 2509.17457; Petsiuk et al., RISE, BMVC 2018.

    >>> images, maps = torch.ones(1, 1, 2, 2), torch.tensor([[[3.0, 0.0], [2.0, 1.0]]])
    >>> occlude(images, maps, [25, 50], torch.zeros(1, 1, 1, 1)).flatten(2)
    tensor([[[0., 1., 1., 1.],
             [0., 1., 0., 1.]]])
    """
    for name, value in (("images", images), ("fills", fills)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if images.dtype not in DTYPES:
        raise TypeError(f"images must be float32, float16, bfloat16 or float64, got {images.dtype}")
    if images.dim() != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images must have shape (N, C, H, W) with C, H, W > 0, got {tuple(images.shape)}")
    check_maps(maps)
    if maps.shape[0] != images.shape[0]:
        raise ValueError(f"maps must be as many as images, {images.shape[0]}, got {maps.shape[0]}")
    flat = selection.check_percents(percents)
    if fills.dtype != images.dtype:
        raise ValueError(f"fills must have the dtype of images, {images.dtype}, got {fills.dtype}")
    whole = fills.unsqueeze(1) if fills.dim() == 4 else fills
    sizes = zip(whole.shape[1:], images.shape, strict=False)
    if whole.dim() != 5 or whole.shape[0] == 0 or not all(got in (1, wanted) for got, wanted in sizes):
        raise ValueError(
            f"fills must have shape (F, C, H, W) or (F, N, C, H, W), F > 0 and any other axis 1 or that of "
            f"images {tuple(images.shape)}, got {tuple(fills.shape)}"
        )
    for name, value in (("maps", maps), ("fills", fills)):
        if value.device != images.device:
            raise ValueError(f"{name} must be on the device of images, {images.device}, got {value.device}")
    place = check_centres(centres)
    result: Tensor = _occlude(images, maps, flat, whole, place)
    return result

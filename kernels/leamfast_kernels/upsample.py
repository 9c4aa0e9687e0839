"""Bilinear upsampling of maps to the input size, by plain resize or from the true centres of the cells.

    plain:    U = F.interpolate(M, size, mode="bilinear", align_corners=False)
    centres:  cell i of an axis sits at pixel offset + i * step; U is bilinear between the cells and constant
              outside the first and the last one

Pixel centres are the integers 0 .. H-1. The plain resize is step = H / h, offset = (H / h - 1) / 2. A 3x3
convolution of stride 2 and padding 1 centres its cell i on pixel 2i instead, and a stack of them drifts: a
resized 7x7 map sits up to 7.5 pixels off on a 112-pixel face.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from leamfast_kernels.aggregate import DTYPES, accumulator

Axis = tuple[float, float]
Centres = tuple[Axis, Axis]
Size = int | tuple[int, int]


def upsample(maps: Tensor, size: Size, centres: Centres | None = None) -> Tensor:
    """Upsample maps bilinearly to the input size. The result carries no gradient.

    Args:
        maps: maps, shape (N, h, w), float32, float16, bfloat16 or float64, any layout.
        size: side or (H, W) of the result in pixels.
        centres: ((offset_y, step_y), (offset_x, step_x)), the place of the cells in pixels; None is the plain
            resize with align_corners=False.

    Returns:
        Maps, shape (N, H, W), contiguous, float32 (float64 for float64), in the units and range of `maps`.

    Raises:
        TypeError: `maps` is no floating tensor, or `size` or `centres` does not consist of numbers.
        ValueError: `maps` is not (N, h, w) with h, w > 0, a size is not positive, a step is not positive.

    >>> upsample(torch.tensor([[[0.0, 4.0]]]), (1, 4))
    tensor([[[0., 1., 3., 4.]]])
    >>> upsample(torch.tensor([[[0.0, 4.0]]]), (1, 4), centres=((0, 1), (0, 2)))
    tensor([[[0., 2., 4., 4.]]])
    """
    check_maps(maps)
    height, width = check_size(size)
    return resample(maps.detach(), height, width, check_centres(centres))


def resample(maps: Tensor, height: int, width: int, centres: Sequence[float] | None) -> Tensor:
    """`upsample` of checked arguments; centres as [offset_y, step_y, offset_x, step_x]."""
    maps = maps.to(accumulator(maps.dtype))
    if centres is None:
        # One channel per map: with the maps as channels of one image the bits depend on their number.
        planes = maps.unsqueeze(1).contiguous()
        return F.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False).squeeze(1)
    offset_y, step_y, offset_x, step_x = centres
    # Columns first, while the maps have few rows.
    return _along(_along(maps, 2, width, offset_x, step_x), 1, height, offset_y, step_y)


def _along(maps: Tensor, dim: int, length: int, offset: float, step: float) -> Tensor:
    """Interpolate one axis: pixel p lies at cell (p - offset) / step, held between first and last cell."""
    last = maps.shape[dim] - 1
    pixels = torch.arange(length, dtype=torch.float64, device=maps.device)
    position = ((pixels - offset) / step).clamp(0, last)
    low = position.floor()
    weight = (position - low).to(maps.dtype)
    before = low.long()
    after = (before + 1).clamp_max(last)
    if dim == 1:
        weight = weight[:, None]
    return torch.lerp(maps.index_select(dim, before), maps.index_select(dim, after), weight)


def check_maps(maps: Tensor) -> None:
    """Raise unless `maps` is a floating tensor of shape (N, h, w) with h, w > 0."""
    if not isinstance(maps, Tensor):
        raise TypeError(f"maps must be a torch.Tensor, got {type(maps).__name__}")
    if maps.dtype not in DTYPES:
        raise TypeError(f"maps must be float32, float16, bfloat16 or float64, got {maps.dtype}")
    if maps.dim() != 3 or 0 in maps.shape[1:]:
        raise ValueError(f"maps must have shape (N, h, w) with h, w > 0, got {tuple(maps.shape)}")


def check_size(size: Size) -> tuple[int, int]:
    """(H, W) of a side or a pair of sides."""
    pair = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in pair):
        raise TypeError(f"size must be an int or a pair (H, W) of ints, got {size!r}")
    if min(pair) < 1:
        raise ValueError(f"size must be at least 1 pixel on each axis, got {size!r}")
    return pair[0], pair[1]


def check_centres(centres: Centres | None) -> list[float] | None:
    """Centres as the list [offset_y, step_y, offset_x, step_x] of the op schemas, or None."""
    if centres is None:
        return None
    try:
        (offset_y, step_y), (offset_x, step_x) = centres
        flat = [float(offset_y), float(step_y), float(offset_x), float(step_x)]
    except (TypeError, ValueError) as exc:
        raise TypeError(
            f"centres must be None or ((offset_y, step_y), (offset_x, step_x)) in pixels, got {centres!r}"
        ) from exc
    if not all(math.isfinite(number) for number in flat) or flat[1] <= 0 or flat[3] <= 0:
        raise ValueError(f"centres must have finite offsets and finite steps above 0, got {centres!r}")
    return flat

"""The fused map over layers: the mean of the sum-normalised upsampled maps."""

from collections.abc import Iterable

import torch
from torch import Tensor

from leamfast.leam.registration import Centres
from leamfast_kernels import upsample

__all__ = ["fuse", "normalise"]


def normalise(maps: Tensor) -> Tensor:
    """Maps (..., h, w) divided by their sums; a map of zeros stays zero, NaN stays NaN."""
    total = maps.sum(dim=(-2, -1), keepdim=True)
    return maps / torch.where(total == 0, torch.ones_like(total), total)


def fuse(maps: Iterable[Tensor], size: int, centres: Iterable[Centres | None] | None = None) -> Tensor:
    """Mean over taps of the sum-normalised maps upsampled to `size`.

    Args:
        maps: one (N, h, w) a tap.
        size: side of the result in pixels.
        centres: where the cells of each tap lie (default: a plain resize of all).

    Returns:
        (N, size, size), float32, each map summing to 1 where no tap's map is zero.
    """
    maps = list(maps)
    places = [None] * len(maps) if centres is None else list(centres)
    upsampled = [normalise(upsample(m, size, place)) for m, place in zip(maps, places, strict=True)]
    if not upsampled:
        raise ValueError("maps must hold at least one tap, got none")
    return torch.stack(upsampled).mean(dim=0)

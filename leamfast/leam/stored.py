"""Maps as they are stored: float16 with maximum 1, and the float32 scale that gives M back."""

import torch
from torch import Tensor

__all__ = ["to_stored"]


def to_stored(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Round maps for the store; everything downstream uses them so, that tables can be made again from it.

    Args:
        maps: M, shape (..., h, w), non-negative; NaN where there is no map.

    Returns:
        map: float16, same shape, maximum 1 (0 for a map of zeros, NaN where M is).
        scale: float32, shape (...), with map * scale = M up to rounding.
    """
    scale = maps.amax(dim=(-2, -1)).float()
    divisor = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (maps / divisor[..., None, None]).half(), scale

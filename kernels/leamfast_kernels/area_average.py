"""Area averages of maps: their mass on a coarser grid.

    out = R M C^T,   R[a, i] = part of row i that lies in coarse row a;   C likewise for the columns

All mass is kept, whatever the ratio of the sides: a cell that lies across a border is shared out by area.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leamfast_kernels.aggregate import accumulator
from leamfast_kernels.upsample import Size, check_maps, check_size

__all__ = ["area_average"]


def area_average(maps: Tensor, size: Size) -> Tensor:
    """Carry the mass of maps over to a grid that is no finer. The result carries no gradient.

    Args:
        maps: maps, shape (N, h, w), float32, float16, bfloat16 or float64, any layout.
        size: side or (H, W) of the coarse grid, at most h and w.

    Returns:
        Maps, shape (N, H, W), float32 (float64 for float64), with the sums of `maps`; maps of that size as
        they are.

    Raises:
        TypeError: `maps` is no floating tensor, or `size` does not consist of numbers.
        ValueError: `maps` is not (N, h, w) with h, w > 0, or a side is not positive or larger than before.

    >>> area_average(torch.tensor([[[1.0, 2.0, 3.0]]]), (1, 2))
    tensor([[[2., 4.]]])
    """
    check_maps(maps)
    height, width = check_size(size)
    if height > maps.shape[1] or width > maps.shape[2]:
        cells = tuple(maps.shape[1:])
        raise ValueError(f"size must be at most {cells} as the maps are, got {(height, width)}")
    maps = maps.detach().to(accumulator(maps.dtype))
    if (height, width) == tuple(maps.shape[1:]):
        return maps
    return _parts(maps.shape[1], height, maps) @ maps @ _parts(maps.shape[2], width, maps).T


def _parts(fine: int, coarse: int, like: Tensor) -> Tensor:
    """Part of each of `fine` cells in each of `coarse` cells, (coarse, fine); columns sum to one."""
    cells = torch.arange(fine, dtype=torch.float64)
    borders = torch.arange(coarse + 1, dtype=torch.float64)[:, None] * (fine / coarse)
    low, high = torch.maximum(borders[:-1], cells), torch.minimum(borders[1:], cells + 1)
    return (high - low).clamp_min(0).to(like.device, like.dtype)

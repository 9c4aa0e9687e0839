"""How tensors lie in memory, as kernels need to know it."""

from __future__ import annotations

from torch import Tensor

__all__ = ["image_strides", "is_flat", "is_wide"]


def image_strides(x: Tensor) -> tuple[int, int, int, int]:
    """Strides of (N, C, h, w) in elements, of axes of length 1 as if rows followed each other."""
    image, channel, row, column = x.stride()
    height, width = x.shape[2:]
    if width == 1:
        column = row if height > 1 else 1
    if height == 1:
        row = width * column
    return image, channel, row, column


def is_flat(strides: tuple[int, int, int, int], width: int) -> bool:
    """Whether pixel p lies p strides of a column behind pixel 0."""
    return strides[2] == width * strides[3]


def is_wide(x: Tensor) -> bool:
    """Whether offsets within an image do not fit into 32 bits."""
    return sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True)) >= 2**31

"""Passes that run a recording of a program, compiled in one way or another."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from leamfast.leam.graphed import GraphedPasses
from leamfast.models.compiled import Passes

__all__ = ["RecordedPasses"]

LEAST = 2  # compilers treat a batch of one as a case of its own


class RecordedPasses:
    """Forward and backward pass of a recording.

    Args:
        passes: the compiled passes.
        taps: which of its taps are wanted, by number.
        dtype: of images and cotangents: float32, or float64 for a network that computes in it.
    """

    def __init__(
        self, passes: Passes | GraphedPasses, taps: tuple[int, ...], dtype: torch.dtype = torch.float32
    ) -> None:
        self.passes, self.taps, self.dtype = passes, taps, dtype

    def forward(self, images: Tensor) -> tuple[Tensor, Any]:
        """Images (B, 3, H, W) -> embeddings (B, D) and what the backward pass needs."""
        with torch.no_grad():
            filled = self._filled(images.to(self.dtype)).contiguous(memory_format=torch.channels_last)
            embeddings, *saved = self.passes.forward(filled)
        return embeddings[: len(images)], saved

    def backward(self, tape: Any, cotangents: Tensor, last: bool) -> tuple[Tensor, ...]:
        """Maps (B, h, w) of the taps for gradients (B, D) of the target."""
        with torch.no_grad():
            maps = self.passes.backward(*tape, self._filled(cotangents.to(self.dtype)).contiguous())
        return tuple(maps[tap][: len(cotangents)] for tap in self.taps)

    def _filled(self, values: Tensor) -> Tensor:
        """Values with zeros behind them, up to the least that the passes take."""
        missing = LEAST - len(values)
        return pad(values, [0, 0] * (values.ndim - 1) + [0, missing]) if missing > 0 else values

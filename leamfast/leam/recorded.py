"""Passes that run a recording of a program, compiled in one way or another."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from leamfast.models.compiled import Passes

__all__ = ["RecordedPasses"]

LEAST = 2  # compilers treat a batch of one as a case of its own


class RecordedPasses:
    """Forward and backward pass of a recording.

    Args:
        passes: the compiled passes.
        taps: how many of its taps, by number, are wanted.
        batch: images of a batch, where that number is fixed; smaller ones are filled up.
    """

    def __init__(self, passes: Passes, taps: tuple[int, ...], batch: int | None = None) -> None:
        self.passes, self.taps, self.batch = passes, taps, batch

    def forward(self, images: Tensor) -> tuple[Tensor, Any]:
        """Images (B, 3, H, W) -> embeddings (B, D) and what the backward pass needs."""
        with torch.no_grad():
            filled = self._filled(images.float()).contiguous(memory_format=torch.channels_last)
            embeddings, *saved = self.passes.forward(filled)
        return embeddings[: len(images)], saved

    def backward(self, tape: Any, cotangents: Tensor, last: bool) -> tuple[Tensor, ...]:
        """Maps (B, h, w) of the taps for gradients (B, D) of the target."""
        with torch.no_grad():
            maps = self.passes.backward(*tape, self._filled(cotangents.float()).contiguous())
        return tuple(maps[tap][: len(cotangents)] for tap in self.taps)

    def _filled(self, values: Tensor) -> Tensor:
        """Values with zeros behind them, up to the number that the passes take."""
        missing = (self.batch or LEAST) - len(values)
        return pad(values, [0, 0] * (values.ndim - 1) + [0, missing]) if missing > 0 else values

"""Passes of a static batch, captured as CUDA graphs: the host launches a pass at once, not each kernel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leamfast.models.compiled import Passes

__all__ = ["GraphedPasses"]

LEAST_FILLED = 4  # a batch of less than one 4th of the static one is not padded, but launched as it is


@dataclass
class _Captured:
    """A static batch: what is written before a replay, and what is read after it."""

    images: Tensor
    cotangents: Tensor
    embeddings: Tensor
    maps: Sequence[Tensor]
    forward: Callable[[], None]
    backward: Callable[[], None]


@dataclass(frozen=True)
class _Turn:
    """A tape that lies in the static batch, until its next forward pass."""

    number: int


class GraphedPasses:
    """Forward and backward pass, as `models.compiled.Passes`, of batches that are padded to the largest yet.

    A batch larger than all before is captured anew; nothing is compiled again. The saved activations of
    the last forward pass lie in the static batch, so that a tape is good until the next one.

    Args:
        passes: on a CUDA device, for any number of images.
    """

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._static: _Captured | None = None
        self._turn = 0

    def forward(self, images: Tensor) -> Sequence[Any]:
        """Images (B, 3, H, W) -> embeddings (B, D) and what `backward` needs."""
        size = 0 if self._static is None else len(self._static.images)
        if len(images) * LEAST_FILLED < size:
            return self._passes.forward(images)
        if len(images) > size:
            self._static = None  # gives its memory back first
            self._static = self._capture(images)
        static = self._static
        assert static is not None
        static.images[: len(images)].copy_(images)
        static.forward()
        self._turn += 1
        return static.embeddings[: len(images)].clone(), _Turn(self._turn)

    def backward(self, *tape: Any) -> Sequence[Tensor]:
        """What `forward` gave behind the embeddings, and cotangents (B, D) -> maps, one (B, h, w) a tap."""
        *saved, cotangents = tape
        if not (saved and isinstance(saved[0], _Turn)):
            return self._passes.backward(*tape)
        static = self._static
        if static is None or saved[0].number != self._turn:
            raise RuntimeError("the tape was overwritten by a later forward pass")
        static.cotangents[: len(cotangents)].copy_(cotangents)
        static.backward()
        return [maps[: len(cotangents)].clone() for maps in static.maps]

    def _capture(self, images: Tensor) -> _Captured:
        passes, images = self._passes, images.clone()
        embeddings, *saved = passes.forward(images)
        cotangents = torch.zeros_like(embeddings)
        passes.backward(*saved, cotangents)  # loads kernels and workspaces, which a capture must not
        (embeddings, *saved), forward = self.record(lambda: passes.forward(images))
        maps, backward = self.record(lambda: passes.backward(*saved, cotangents))
        return _Captured(images, cotangents, embeddings, maps, forward, backward)

    def record(self, function: Callable[[], Sequence[Tensor]]) -> tuple[Sequence[Tensor], Callable[[], None]]:
        """What a function gives; and what makes it compute that again in the same memory."""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = function()
        return outputs, graph.replay

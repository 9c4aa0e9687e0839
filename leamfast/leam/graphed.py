"""Passes of static batches, captured as CUDA graphs: the host launches a pass at once, not each kernel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leamfast.models.compiled import Passes

__all__ = ["GraphedPasses", "static_size"]

KEPT = 6  # static batches, each with its activations in memory


def static_size(count: int) -> int:
    """The static batch of a batch: the next of 2, 3, 4, 6, 8, 12, 16, 24, ...

    It follows from the batch alone, so that its maps have the same bits whatever was computed before.
    """
    size = 2
    while size < count:
        size = size * 3 // 2 if size.bit_count() == 1 else size * 4 // 3
    return size


@dataclass
class _Captured:
    """A static batch: what is written before a replay, what is read after it, and how often it was."""

    images: Tensor
    cotangents: Tensor
    embeddings: Tensor
    maps: Sequence[Tensor]
    forward: Callable[[], None]
    backward: Callable[[], None]
    turn: int = 0


@dataclass(frozen=True)
class _Tape:
    """Activations that lie in a static batch, until its next forward pass."""

    static: _Captured
    turn: int


class GraphedPasses:
    """Forward and backward pass, as `models.compiled.Passes`, of batches that are padded to few sizes.

    Each size is captured when it is first met; nothing is compiled again. A tape is good until the next
    forward pass.

    Args:
        passes: on a CUDA device, for any number of images.
    """

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._static: dict[int, _Captured] = {}  # the latest used last

    def forward(self, images: Tensor) -> tuple[Tensor, _Tape]:
        """Images (B, 3, H, W) -> embeddings (B, D) and what `backward` needs."""
        size = static_size(len(images))
        static = self._static.pop(size, None)
        if static is None:
            while len(self._static) >= KEPT:
                del self._static[next(iter(self._static))]  # gives its memory back first
            static = self._capture(images, size)
        self._static[size] = static
        static.images[: len(images)].copy_(images)
        static.forward()
        static.turn += 1
        return static.embeddings[: len(images)].clone(), _Tape(static, static.turn)

    def backward(self, *inputs: Any) -> Sequence[Tensor]:
        """What `forward` gave behind the embeddings, and cotangents (B, D) -> maps, one (B, h, w) a tap."""
        tape, cotangents = inputs
        static = tape.static
        if static.turn != tape.turn:
            raise RuntimeError("the tape was overwritten by a later forward pass")
        static.cotangents[: len(cotangents)].copy_(cotangents)
        static.backward()
        return [maps[: len(cotangents)].clone() for maps in static.maps]

    def _capture(self, images: Tensor, size: int) -> _Captured:
        passes = self._passes
        shape, layout = (size, *images.shape[1:]), torch.channels_last
        images = torch.zeros(shape, dtype=images.dtype, device=images.device).contiguous(memory_format=layout)
        embeddings, *saved = passes.forward(images)
        cotangents = embeddings.new_zeros(embeddings.shape)
        passes.backward(*saved, cotangents)  # loads kernels and workspaces, which a capture must not
        (embeddings, *saved), forward = self.record(lambda: passes.forward(images), images.device)
        maps, backward = self.record(lambda: passes.backward(*saved, cotangents), images.device)
        return _Captured(images, cotangents, embeddings, maps, forward, backward)

    def record(
        self, function: Callable[[], Sequence[Tensor]], device: torch.device
    ) -> tuple[Sequence[Tensor], Callable[[], None]]:
        """What a function gives; and what makes it compute that again in the same memory."""
        with torch.cuda.device(device):
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile, as the one that makes crops does.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = function()
        return outputs, graph.replay

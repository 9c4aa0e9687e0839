"""The two passes by plain autograd: the reference for every other backend.

The first tap's activation is the leaf: the backward pass stops there, and no gradient of a parameter is ever
computed. The network is left as it was: hooks are gone afterwards whatever happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leamfast.errors import RequestError
from leamfast.models.embedding import as_embedding
from leamfast.models.face_model import FaceModel
from leamfast.models.layers import Layer, at_layers
from leamfast_kernels import aggregate

__all__ = ["EagerPasses", "Tape"]


@dataclass(frozen=True)
class Tape:
    """What a forward pass keeps for the backward passes: embeddings with their graph, outputs of the taps."""

    embeddings: Tensor
    activations: tuple[Tensor, ...]


class EagerPasses:
    """Forward and backward pass of a model.

    Args:
        model: the model.
        taps: where maps are made.
        positive: whether ReLU(A) takes the place of A.
    """

    def __init__(self, model: FaceModel, taps: Sequence[Layer], positive: bool = False) -> None:
        self.model, self.taps, self.positive = model, tuple(taps), positive

    def forward(self, images: Tensor) -> tuple[Tensor, Tape]:
        """Preprocessed images (B, 3, H, W) -> embeddings (B, D), float32, and the tape."""
        activations: dict[str, Tensor] = {}

        def capture(tap: Layer, output: Tensor) -> Tensor:
            if not output.requires_grad:
                output = output.detach().requires_grad_()
                torch.set_grad_enabled(True)
            activations[tap.name] = output
            return output.clone() if tap.overwritten else output

        network = self.model.network
        with torch.set_grad_enabled(False), at_layers(network, self.taps, capture):
            images = images.to(next(network.parameters(), images).dtype)
            embeddings = as_embedding(network(images), self.model.name)
            if missing := [tap.name for tap in self.taps if tap.name not in activations]:
                raise RequestError(f"layer {missing[0]!r} of {self.model.name} did not run")
            tape = Tape(embeddings, tuple(activations[tap.name] for tap in self.taps))
        embeddings = embeddings.detach()
        return embeddings if embeddings.dtype == torch.float64 else embeddings.float(), tape

    def backward(self, tape: Tape, cotangents: Tensor, last: bool) -> tuple[Tensor, ...]:
        """Maps of all taps, one (B, h, w) each.

        Args:
            tape: of the forward pass.
            cotangents: gradient of the target with respect to the embeddings, (B, D).
            last: whether no other backward pass over this tape follows.

        Raises:
            RequestError: a tap does not influence the embedding.
        """
        if not tape.embeddings.requires_grad:
            raise RequestError(
                f"the embedding of {self.model.name} has no gradient, as of a forward pass under "
                "torch.no_grad or detach: no map can be made of it"
            )
        grads = torch.autograd.grad(
            tape.embeddings,
            tape.activations,
            cotangents.to(tape.embeddings.dtype),
            retain_graph=not last,
            allow_unused=True,
        )
        maps = []
        for tap, act, grad in zip(self.taps, tape.activations, grads, strict=True):
            if grad is None:
                raise RequestError(
                    f"layer {tap.name!r} of {self.model.name} does not influence the embedding"
                )
            act = tap.grid(act.detach())
            maps.append(aggregate(act.clamp_min(0) if self.positive else act, tap.grid(grad)))
        return tuple(maps)

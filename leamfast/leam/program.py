"""The LEAM program: one forward pass, one gradient for all taps.

With A^k the channels of a tap and G^k = dL/dA^k, L = 1 - cos(f(x), r), the map of the tap is
ReLU(sum_k ReLU(G^k) * A^k) (LayerCAM, Jiang et al. 2021, carried over to embeddings: arXiv 2509.17457).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from leamfast.errors import RequestError
from leamfast.leam.eager import EagerPasses
from leamfast.leam.precision import matrix_products
from leamfast.leam.references import unit
from leamfast.leam.registration import REGISTRATIONS, Centres, cell_centres
from leamfast.models.compiled import CompiledModel
from leamfast.models.devices import upload
from leamfast.models.face_model import FaceModel
from leamfast.models.layers import Layer

__all__ = ["ACTIVATIONS", "TARGETS", "Passes", "Program", "ProgramOutput"]

TARGETS = ("loss", "similarity")
ACTIVATIONS = ("signed", "positive")


@dataclass(frozen=True)
class ProgramOutput:
    """What a program returns for B images with R references each.

    Attributes:
        embeddings: f(x), (B, D), float32, not normalised.
        cosines: cos(f(x), r), (B,) or (B, R); NaN where there is no reference.
        maps: tap -> M, (B, h, w) or (B, R, h, w), float32; NaN where there is no reference.
    """

    embeddings: Tensor
    cosines: Tensor
    maps: dict[str, Tensor]


class Passes(Protocol):
    """A forward pass, and backward passes over what it kept.

    Implementations: `EagerPasses`, and those that run a recording of it.
    """

    def forward(self, images: Tensor) -> tuple[Tensor, Any]:
        """Images (B, 3, H, W) -> embeddings (B, D), without gradient, and what backward passes need."""
        ...

    def backward(self, tape: Any, cotangents: Tensor, last: bool) -> Sequence[Tensor]:
        """Maps (B, h, w) of every tap for gradients (B, D) of the target with respect to the embeddings."""
        ...


class Program:
    """(images, weights, references) -> embeddings and the maps of all taps.

    One forward pass, and one backward pass a reference of an image.

    Args:
        model: the model.
        taps: where maps are made; in the order of execution.
        target: `loss` (gradient of 1 - cos) or `similarity` (gradient of cos).
        activation: `signed` (A as it is) or `positive` (ReLU(A)).
        registration: `resize` or `receptive`; where `centres` says that the cells of a map lie.
        precision: `fp32`, or `tf32` and `bf16`, in which the passes compute.
        passes: who computes (default: plain autograd).

    Attributes:
        kept: the compiled program in the user's cache; None where there is none.
    """

    def __init__(
        self,
        model: FaceModel,
        taps: Sequence[Layer],
        target: str = "loss",
        activation: str = "signed",
        registration: str = "resize",
        precision: str = "fp32",
        passes: Passes | None = None,
    ) -> None:
        for name, value, allowed in (
            ("target", target, TARGETS),
            ("activation", activation, ACTIVATIONS),
            ("registration", registration, REGISTRATIONS),
        ):
            if value not in allowed:
                raise RequestError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        self.model = model
        self.taps = tuple(taps)
        self.precision = precision
        self.sign = -1.0 if target == "loss" else 1.0
        self.kept: Path | None = None
        self.passes = passes or EagerPasses(model, self.taps, positive=activation == "positive")
        # None is the plain resize, which kernels compute without a table of centres.
        self.centres: dict[str, Centres | None] = dict.fromkeys(tap.name for tap in self.taps)
        if isinstance(model, CompiledModel):
            self.centres = {tap.name: model.info.centres[tap.name] for tap in self.taps}
        elif registration == "receptive":
            self.centres |= cell_centres(model, self.taps)

    def __call__(
        self, images: Tensor, weights: Tensor | None = None, references: Tensor | None = None
    ) -> ProgramOutput:
        """Maps of preprocessed images against r = weights @ unit(f) + references.

        Args:
            images: network input, (B, 3, H, W).
            weights: leave-one-out weights, (B, B), over the unit embeddings of the batch itself.
            references: (B, D), or (B, R, D) for R maps an image; NaN rows are padding.

        Raises:
            RequestError: the network trains, or a tap does not influence the embedding or was overwritten.
        """
        if self.model.network.training:
            raise RequestError(
                "the network is in training mode, where images influence each other: call .eval()"
            )
        with matrix_products(self.precision):
            return self._computed(images, weights, references)

    def embed(self, images: Tensor) -> Tensor:
        """Preprocessed images (B, 3, H, W) -> embeddings (B, D), the same as beside their maps."""
        with matrix_products(self.precision):
            if isinstance(self.passes, EagerPasses):
                return self.model.embed(images)
            return self.passes.forward(images)[0]

    def _computed(self, images: Tensor, weights: Tensor | None, references: Tensor | None) -> ProgramOutput:
        embeddings, tape = self.passes.forward(images)
        norms = embeddings.norm(dim=1, keepdim=True)
        # An embedding without a direction must not reach other images through 0 * NaN.
        broken = ~(norms.isfinite() & (norms > 0)).squeeze(1)
        units = (embeddings / norms).masked_fill(broken[:, None], 0)
        r = _references(units, weights, references)
        longest = r.abs().amax(dim=-1)
        missing = ~((longest > 0) & longest.isfinite())  # all zero, or NaN, or without end
        missing = missing | broken.view(-1, *[1] * (missing.ndim - 1))
        towards = unit(r.masked_fill(missing[..., None], 0))
        cosines = (units.view(_per(r, units)) * towards).sum(dim=-1)
        maps = self._maps(tape, units, norms, towards, cosines, missing)
        return ProgramOutput(embeddings, cosines.masked_fill(missing, torch.nan), maps)

    def _maps(
        self,
        tape: Any,
        units: Tensor,
        norms: Tensor,
        towards: Tensor,
        cosines: Tensor,
        missing: Tensor,
    ) -> dict[str, Tensor]:
        columns = towards[:, None] if towards.ndim == 2 else towards
        angles = cosines[:, None] if cosines.ndim == 1 else cosines
        maps: list[Sequence[Tensor]] = []
        for i in range(columns.shape[1]):
            # d cos(f, r) / df = (r/|r| - cos * f/|f|) / |f|
            gradients = self.sign * (columns[:, i] - angles[:, i, None] * units) / norms
            gradients = gradients.masked_fill(missing.view(angles.shape)[:, i, None], 0)
            maps.append(self.passes.backward(tape, gradients, last=i + 1 == columns.shape[1]))
        joined = {
            tap.name: parts[0] if cosines.ndim == 1 else torch.stack(parts, dim=1)
            for tap, parts in zip(self.taps, zip(*maps, strict=True), strict=True)
        }
        return {name: m.masked_fill(missing[..., None, None], torch.nan) for name, m in joined.items()}


def _references(units: Tensor, weights: Tensor | None, references: Tensor | None) -> Tensor:
    count, dimensions = units.shape
    if weights is None and references is None:
        raise RequestError("weights or references must be given: a map needs something to compare with")
    if weights is not None and tuple(weights.shape) != (count, count):
        raise RequestError(
            f"weights must have shape ({count}, {count}) for {count} images, got {tuple(weights.shape)}"
        )
    if references is not None and not (
        references.ndim in (2, 3)
        and references.shape[0] == count
        and references.shape[-1] == dimensions
        and references.numel()
    ):
        raise RequestError(
            f"references must be embeddings of shape ({count}, {dimensions}) or ({count}, R, {dimensions}) "
            f"with R of at least 1, got {tuple(references.shape)}"
        )
    if weights is None:
        assert references is not None
        return upload(references, units.device).to(units)
    own = upload(weights, units.device).to(units) @ units
    if references is None:
        return own
    return own.view(_per(references, own)) + upload(references, units.device).to(units)


def _per(references: Tensor, rows: Tensor) -> tuple[int, ...]:
    """Shape of (B, D) rows that broadcasts against (B, D) or (B, R, D) references."""
    return rows.shape if references.ndim == 2 else (rows.shape[0], 1, rows.shape[1])

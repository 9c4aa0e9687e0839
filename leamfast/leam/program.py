"""The LEAM program: one forward pass, one gradient for all taps.

With A^k the channels of a tap and G^k = dL/dA^k, L = 1 - cos(f(x), r), the map of the tap is
ReLU(sum_k ReLU(G^k) * A^k) (LayerCAM, Jiang et al. 2021, carried over to embeddings: arXiv 2509.17457).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leamfast.errors import RequestError
from leamfast.leam.references import unit
from leamfast.leam.registration import REGISTRATIONS, Centres, cell_centres
from leamfast.models.face_model import FaceModel
from leamfast.models.layers import Layer, hooks
from leamfast_kernels import aggregate

__all__ = ["ACTIVATIONS", "TARGETS", "EagerProgram", "ProgramOutput"]

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


class EagerProgram:
    """(images, weights, references) -> embeddings and the maps of all taps, by plain autograd.

    The first tap's activation is the leaf: the backward pass stops there, and no gradient of a parameter is
    ever computed. The network is left as it was: hooks are gone afterwards whatever happens.

    Args:
        model: the model.
        taps: where maps are made; in the order of execution.
        target: `loss` (gradient of 1 - cos) or `similarity` (gradient of cos).
        activation: `signed` (A as it is) or `positive` (ReLU(A)).
        registration: `resize` or `receptive`; where `centres` says that the cells of a map lie.
    """

    def __init__(
        self,
        model: FaceModel,
        taps: Sequence[Layer],
        target: str = "loss",
        activation: str = "signed",
        registration: str = "resize",
    ) -> None:
        if target not in TARGETS:
            raise RequestError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
        self.model = model
        self.taps = tuple(taps)
        if activation not in ACTIVATIONS:
            raise RequestError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if registration not in REGISTRATIONS:
            raise RequestError(
                f"registration must be one of {', '.join(REGISTRATIONS)}, got {registration!r}"
            )
        self.sign = -1.0 if target == "loss" else 1.0
        self.positive = activation == "positive"
        # None is the plain resize, which kernels compute without a table of centres.
        self.centres: dict[str, Centres | None] = dict.fromkeys(tap.name for tap in self.taps)
        if registration == "receptive":
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
        with torch.set_grad_enabled(False):  # a tap's hook turns gradients on from there
            embeddings, acts = self._forward(images)
            units = unit(embeddings)
            # An embedding that is not finite must not reach other images through 0 * NaN.
            broken = ~units.detach().isfinite().all(dim=1)
            r = _references(units.detach().masked_fill(broken[:, None], 0), weights, references)
            if r.shape[-1] != units.shape[-1]:
                raise RequestError(
                    f"references must have the model's {units.shape[-1]} dimensions, got {r.shape[-1]}"
                )
            missing = ~(r.abs().amax(dim=-1) > 0)  # all zero, or NaN
            missing = missing | broken.view(-1, *[1] * (missing.ndim - 1))
            towards = unit(torch.where(missing[..., None], units.detach().view(_per(r, units)), r))
            cosines = (units.view(_per(r, units)) * towards).sum(dim=-1)
            maps = self._maps(acts, cosines, missing)
            return ProgramOutput(embeddings.detach(), cosines.detach().masked_fill(missing, torch.nan), maps)

    def _forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        acts: dict[str, Tensor] = {}
        modules = dict(self.model.network.named_modules())
        with hooks() as handles:
            for tap in self.taps:

                def capture(module: nn.Module, _: object, output: Tensor, tap: Layer = tap) -> Tensor:
                    if not output.requires_grad:
                        output = output.detach().requires_grad_()
                        torch.set_grad_enabled(True)
                    acts[tap.name] = output
                    return output.clone() if tap.overwritten else output

                handles.append(modules[tap.name].register_forward_hook(capture))
            embeddings = self.model.network(images)
        return embeddings if embeddings.dtype == torch.float64 else embeddings.float(), acts

    def _maps(self, acts: dict[str, Tensor], cosines: Tensor, missing: Tensor) -> dict[str, Tensor]:
        columns = cosines[:, None] if cosines.ndim == 1 else cosines
        maps: dict[str, list[Tensor]] = {name: [] for name in acts}
        for i in range(columns.shape[1]):
            grads = torch.autograd.grad(
                self.sign * columns[:, i].sum(),
                list(acts.values()),
                retain_graph=i + 1 < columns.shape[1],
                allow_unused=True,
            )
            for (name, act), grad in zip(acts.items(), grads, strict=True):
                if grad is None:
                    raise RequestError(
                        f"layer {name!r} of {self.model.name} does not influence the embedding"
                    )
                act = act.detach()
                maps[name].append(aggregate(act.clamp_min(0) if self.positive else act, grad))
        joined = {
            name: parts[0] if cosines.ndim == 1 else torch.stack(parts, dim=1) for name, parts in maps.items()
        }
        return {name: m.masked_fill(missing[..., None, None], torch.nan) for name, m in joined.items()}


def _references(units: Tensor, weights: Tensor | None, references: Tensor | None) -> Tensor:
    if weights is None and references is None:
        raise RequestError("weights or references must be given: a map needs something to compare with")
    if weights is None:
        assert references is not None
        return references.to(units)
    own = weights.to(units) @ units
    if references is None:
        return own
    return own.view(_per(references, own)) + references.to(units)


def _per(references: Tensor, rows: Tensor) -> tuple[int, ...]:
    """Shape of (B, D) rows that broadcasts against (B, D) or (B, R, D) references."""
    return rows.shape if references.ndim == 2 else (rows.shape[0], 1, rows.shape[1])

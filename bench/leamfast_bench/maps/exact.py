"""The right answer: float64, hooks that clone, the whole graph, and nothing clever."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leamfast.models.layers import hooks
from leamfast_bench.maps.case import Case

__all__ = ["Exact", "exact"]

BLOCK = 4  # images at once: the whole graph in float64 is large


@dataclass(frozen=True, eq=False)
class Exact:
    """What every tap holds, by name, in float64 on the CPU.

    Attributes:
        acts: activations, (N, C, h, w), and
        grads: gradients of 1 - cos, (N, C, h, w); none where there are several references an image.
        maps: (N, h, w), or (N, R, h, w).
    """

    acts: Mapping[str, Tensor]
    grads: Mapping[str, Tensor]
    maps: Mapping[str, Tensor]

    def wanted(self, tap: str, quantity: str) -> Tensor:
        """`map`, `act`, `grad`, or `product` of the two."""
        if quantity == "product":
            return self.acts[tap] * self.grads[tap]
        return {"map": self.maps, "act": self.acts, "grad": self.grads}[quantity][tap]


def exact(case: Case) -> Exact:
    """M = ReLU(sum_k ReLU(G_k) * A_k) of a case, term by term."""
    network = copy.deepcopy(case.model.network).double().requires_grad_(True)
    single = case.references.ndim == 2
    columns = case.references[:, None] if single else case.references
    acts: list[dict[str, Tensor]] = []
    grads: list[dict[str, Tensor]] = []
    maps: list[dict[str, Tensor]] = []
    for start in range(0, len(case.images), BLOCK):
        part = slice(start, start + BLOCK)
        here, each = _passes(network, case.taps, case.images[part].double(), columns[part].double())
        of_each = [
            {tap: (grad[tap].clamp_min(0) * here[tap]).sum(dim=1).clamp_min(0).cpu() for tap in case.taps}
            for grad in each
        ]
        maps.append({tap: torch.stack([one[tap] for one in of_each], dim=1) for tap in case.taps})
        if single:
            acts.append({tap: here[tap].cpu() for tap in case.taps})
            grads.append({tap: each[0][tap].cpu() for tap in case.taps})
    joined = {tap: torch.cat([block[tap] for block in maps]) for tap in case.taps}
    if not single:
        return Exact({}, {}, joined)
    return Exact(
        {tap: torch.cat([block[tap] for block in acts]) for tap in case.taps},
        {tap: torch.cat([block[tap] for block in grads]) for tap in case.taps},
        {tap: values[:, 0] for tap, values in joined.items()},
    )


def _passes(
    network: nn.Module, taps: tuple[str, ...], images: Tensor, references: Tensor
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Activations of the taps, and for each of R references, (N, R, D), the gradients of 1 - cos there."""
    acts: dict[str, Tensor] = {}
    with hooks() as handles:
        for tap in taps:

            def keep(module: object, args: object, output: Tensor, tap: str = tap) -> Tensor:
                acts[tap] = output
                return output.clone()

            handles.append(network.get_submodule(tap).register_forward_hook(keep))
        cosines = torch.cosine_similarity(network(images)[:, None], references, dim=-1)
    grads = [
        dict(zip(acts, torch.autograd.grad(loss, list(acts.values()), retain_graph=True), strict=True))
        for loss in (1 - cosines).sum(dim=0)
    ]
    return {tap: act.detach() for tap, act in acts.items()}, grads

"""The best loop by hand: what someone writes who knows autograd well, and the floor under everyone.

Parameters are frozen, the first tap's activation is the leaf, one gradient serves all taps, and one
expression makes each map.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from leamfast_bench.maps.case import Case
from leamfast_bench.maps.row import Call, Row, See

__all__ = ["bare", "by_hand", "expert_rows"]


def expert_rows() -> Iterator[Row]:
    """The loop in both memory layouts, and the bare pass."""
    yield Row("loop by hand", "by hand", by_hand)
    yield Row("loop by hand, channels_last", "by hand", partial(by_hand, layout=torch.channels_last))
    yield Row("bare forward and backward", "floor", bare, taps=1)


def by_hand(case: Case, layout: torch.memory_format = torch.contiguous_format) -> Call:
    """Maps of all taps; R references cost one forward pass and R backward passes."""
    network = case.frozen(layout)
    acts = _tap(network, case.taps)

    def maps(grads: tuple[Tensor, ...]) -> list[Tensor]:
        pairs = zip(acts, grads, strict=True)
        return [(grad.clamp_min(0) * act.detach()).sum(dim=1).clamp_min(0) for act, grad in pairs]

    def call(see: See) -> object:
        acts.clear()
        embeddings = network(case.images.contiguous(memory_format=layout))
        if case.references.ndim == 2:
            loss = (1 - torch.cosine_similarity(embeddings, case.references)).sum()
            found = maps(torch.autograd.grad(loss, acts))
        else:
            losses = (1 - torch.cosine_similarity(embeddings[:, None], case.references, dim=-1)).sum(dim=0)
            last = len(losses) - 1
            each = [
                maps(torch.autograd.grad(loss, acts, retain_graph=i < last)) for i, loss in enumerate(losses)
            ]
            found = [torch.stack(of_tap, dim=1) for of_tap in zip(*each, strict=True)]
        acts.clear()
        for tap, values in zip(case.taps, found, strict=True):
            see(tap, map=values)
        return found

    return call


def bare(case: Case) -> Call:
    """Forward, and backward to the first tap, without maps: no eager code can do with less."""
    network, first = case.frozen(), case.taps[:1]
    acts = _tap(network, first)

    def call(see: See) -> object:
        acts.clear()
        loss = (1 - torch.cosine_similarity(network(case.images), case.references)).sum()
        (gradient,) = torch.autograd.grad(loss, acts)
        acts.clear()
        see(first[0], grad=gradient)
        return gradient

    return call


def _tap(network: nn.Module, taps: tuple[str, ...]) -> list[Tensor]:
    """A list that every forward pass fills with the activations of the taps, of which the first is a leaf."""
    acts: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        acts.append(output if output.requires_grad else output.requires_grad_())

    for tap in taps:
        network.get_submodule(tap).register_forward_hook(keep)
    return acts

"""Every operator is called from TorchScript, from a file of it too."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from leamfast_kernels import (
    aggregate,
    aggregate_backward,
    aggregate_statistics,
    bhattacharyya,
    bhattacharyya_matrix,
    occlude,
    region_share,
    support,
)


class Operators(torch.nn.Module):
    def forward(self, acts: Tensor, grads: Tensor, labels: Tensor) -> list[Tensor]:
        maps = torch.ops.leamfast.aggregate(acts, grads)
        same, maxima, sums = torch.ops.leamfast.aggregate_statistics(acts, grads)
        ones = torch.ones(acts.size(1))
        step, through = torch.ops.leamfast.aggregate_backward(acts, grads, ones, 0 * ones, 0.5 * ones)
        masks = torch.ops.leamfast.support(maps, [5.0, 100.0], 9, 8, None)
        shares, sizes = torch.ops.leamfast.region_share(maps, labels, [5.0], 9, 8, [0.0, 2.0, 0.0, 2.0], 19)
        hidden = torch.ops.leamfast.occlude(acts, maps, [50.0], torch.zeros(1, 1, acts.size(1), 1, 1), None)
        pairs = torch.ops.leamfast.bhattacharyya(maps, maps.flip(0), None, 50.0)
        matrix = torch.ops.leamfast.bhattacharyya_matrix(maps, None, None, 2)
        return [maps, same, maxima, sums, step, through, masks, shares, sizes, hidden, pairs, matrix]


def wanted_of(acts: Tensor, grads: Tensor, labels: Tensor) -> list[Tensor]:
    maps = aggregate(acts, grads)
    ones = torch.ones(acts.shape[1])
    return [
        maps,
        *aggregate_statistics(acts, grads),
        *aggregate_backward(acts, grads, ones, 0 * ones, 0.5 * ones),
        support(maps, [5, 100], (9, 8)),
        *region_share(maps, labels, [5], (9, 8), ((0, 2), (0, 2))),
        occlude(acts, maps, [50], torch.zeros(1, acts.shape[1], 1, 1)),
        bhattacharyya(maps, maps.flip(0), percent=50),
        bhattacharyya_matrix(maps, tile=2),
    ]


@pytest.mark.parametrize("stored", [False, True])
def test_torchscript_calls_every_operator(stored, tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against TorchScript
        module = torch.jit.script(Operators())
        if stored:
            module.save(str(tmp_path / "operators.pt"))
            module = torch.jit.load(str(tmp_path / "operators.pt"))
    acts, grads = torch.randn(2, 5, 4, 6, 7).abs() + 0.1
    labels = torch.randint(19, (5, 9, 8), dtype=torch.uint8)
    wanted = wanted_of(acts, grads, labels)
    for needed in (False, True):  # as activations have it
        for found, expected in zip(module(acts.requires_grad_(needed), grads, labels), wanted, strict=True):
            assert torch.equal(found, expected)
            assert not found.requires_grad

"""Wrong gradients must not get through, whenever they begin."""

import pytest
import torch
from torch import nn

from leamfast import RequestError
from leamfast.leam.checking import CALLS, check_passes, relative_error
from leamfast.leam.eager import EagerPasses
from leamfast.leam.taps import select_taps
from leamfast_kernels import aggregate

TAPS = ("conv1", "layer1", "layer2", "layer3")


class Activations(nn.Module):
    """Embedding and activations in one result: what a user would freeze."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        net = self.network
        first = net.conv1(x)
        one = net.layer1(net.prelu(net.bn1(first)))
        two = net.layer2(one)
        three = net.layer3(two)
        embedding = net.features(net.fc(torch.flatten(net.bn2(net.layer4(three)), 1)))
        return embedding, first, one, two, three


class FrozenPasses:
    """Autograd through a frozen TorchScript module: right at its first call, silently wrong afterwards."""

    def __init__(self, network: nn.Module) -> None:
        with pytest.warns(Warning, match="deprecated"):
            self.module = torch.jit.freeze(torch.jit.script(Activations(network).eval()))

    def forward(self, images):
        embeddings, *acts = self.module(images.clone().requires_grad_())
        return embeddings.detach(), (embeddings, acts)

    def backward(self, tape, cotangents, last):
        grads = torch.autograd.grad(tape[0], tape[1], cotangents, allow_unused=True)
        return [
            aggregate(act.detach(), torch.zeros_like(act) if grad is None else grad)
            for act, grad in zip(tape[1], grads, strict=True)
        ]


class Wrong:
    """Right passes but for one call, at which something is changed."""

    def __init__(self, passes, call, change):
        self.passes, self.call, self.change, self.calls = passes, call, change, 0

    def forward(self, images):
        self.calls += 1
        return self.passes.forward(images)

    def backward(self, tape, cotangents, last):
        maps = self.passes.backward(tape, cotangents, last)
        return [self.change(m) for m in maps] if self.calls == self.call else maps


def eager(model):
    return EagerPasses(model, select_taps(model, TAPS))


def test_the_freeze_trap_is_caught(small_iresnet):
    small_iresnet.network.requires_grad_(False)
    with pytest.raises(
        RequestError, match=r"wrong results: at call [25], layer\d of small .* use backend eager"
    ):
        check_passes(FrozenPasses(small_iresnet.network), eager(small_iresnet), TAPS, "fp32", "frozen")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "change", [lambda m: -m, lambda m: 1.02 * m, lambda m: m * torch.nan, lambda m: 0 * m]
)
def test_what_is_wrong_at_a_checked_call_is_caught(small_iresnet, call, change):
    passes = eager(small_iresnet)
    with pytest.raises(RequestError, match=f"at call {call}, conv1"):
        check_passes(Wrong(passes, call, change), passes, TAPS, "fp32", "the backend")


def test_right_passes_get_through_and_their_error_is_told(small_iresnet):
    passes = eager(small_iresnet)
    errors = check_passes(Wrong(passes, 2, lambda m: 1.001 * m), passes, TAPS, "fp32", "the backend")
    assert set(errors) == set(TAPS)
    assert all(error == pytest.approx(1e-3, rel=1e-2) for error in errors.values())


def test_relative_error():
    assert relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0])) == 0
    assert relative_error(torch.tensor([0.0, 0.0]), torch.tensor([3.0, 4.0])) == 1
    assert relative_error(torch.tensor([1.0]), torch.tensor([0.0])) == 1
    assert relative_error(torch.tensor([torch.nan]), torch.tensor([1.0])) == float("inf")

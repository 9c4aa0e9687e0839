"""Recorded programs: the same values as autograd in float64, whatever is folded."""

import copy

import pytest
import torch
from torch import nn

from leamfast import FaceModel, RequestError
from leamfast.leam.eager import EagerPasses
from leamfast.leam.folding import fold
from leamfast.leam.recording import record, split
from leamfast.leam.taps import select_taps
from leamfast.models import Preprocessing
from leamfast.models.mobilefacenet import DepthwiseSeparable, InvertedResidual

aten = torch.ops.aten
DIMENSIONS = 10


def double(network: nn.Module, size: int = 16) -> FaceModel:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            low, high = (0.5, 1.5) if name.endswith(("var", "weight")) else (-0.3, 0.3)
            tensor.copy_(torch.empty_like(tensor).uniform_(low, high, generator=generator))
    halves = (127.5,) * 3
    network = network.double().eval().requires_grad_(False)
    return FaceModel("net", "net", network, Preprocessing(size, "rgb", halves, halves), "")


def both(model: FaceModel, taps, positive: bool = False):
    """The passes by autograd, and a folded recording of them."""
    passes = EagerPasses(model, select_taps(model, taps), positive)
    joint = record(passes, DIMENSIONS)
    fold(joint)
    return passes, split(joint)


def assert_equal(passes, recording, size: int = 16) -> None:
    for count in (2, 3, 7):
        images = torch.randn(count, 3, size, size, dtype=torch.float64)
        embeddings, tape = passes.forward(images)
        cotangents = torch.randn(embeddings.shape, dtype=torch.float64)
        wanted = passes.backward(tape, cotangents, last=True)
        found, *saved = recording.forward(images)
        torch.testing.assert_close(found, embeddings, rtol=1e-9, atol=1e-12)
        maps = recording.backward(*saved, cotangents)
        for ours, theirs in zip(maps, wanted, strict=True):
            assert theirs.abs().max() > 0
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def targets(graph) -> list:
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


class Stack(nn.Module):
    """Layers, then an embedding of what they leave."""

    def __init__(self, *layers: nn.Module, size: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        with torch.no_grad():
            left = self.layers.eval()(torch.zeros(1, 3, size, size))
        self.fc = nn.Linear(left[0].numel(), DIMENSIONS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layers(x).flatten(1))


STACKS = {
    "strides and dilation": lambda: Stack(
        nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.PReLU(4), nn.Conv2d(4, 5, 3, 2, 0, dilation=2),
        nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 6, (3, 1), 1, (1, 0), bias=False), nn.BatchNorm2d(6),
    ),
    "groups": lambda: Stack(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, 1, 1, groups=2), nn.BatchNorm2d(8), nn.SiLU(),
        nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False), nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, 3, 1, 1, groups=8),
    ),
    "depthwise": lambda: Stack(
        nn.Conv2d(3, 8, 3, 1, 1), DepthwiseSeparable(8), InvertedResidual(8, 8, 1, 2),
        InvertedResidual(8, 6, 2, 2),
    ),
    "batch norm before and after": lambda: Stack(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, 1, 1), nn.PReLU(),
    ),
    "wide padding and pooling": lambda: Stack(
        nn.Conv2d(3, 4, 3, 1, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.GELU(), nn.Conv2d(4, 4, 1, 1, 2),
        nn.AvgPool2d(2), nn.Dropout(), nn.InstanceNorm2d(4), nn.Conv2d(4, 4, 1),
    ),
    "transposed": lambda: Stack(
        nn.Conv2d(3, 4, 4, 4), nn.ConvTranspose2d(4, 5, 3, 2, 1), nn.BatchNorm2d(5), nn.Conv2d(5, 5, 3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("taps", ["auto", "all"])
def test_folding_is_exact(name, taps):
    torch.manual_seed(0)
    assert_equal(*both(double(STACKS[name]()), taps))


@pytest.mark.parametrize("positive", [False, True])
def test_a_residual_network_in_float64(small_iresnet, positive):
    model = FaceModel(
        "double", "double", copy.deepcopy(small_iresnet.network).double(), small_iresnet.preprocessing, ""
    )
    passes = EagerPasses(model, select_taps(model, "all"), positive)
    joint = record(passes, 16)
    fold(joint)
    assert_equal(passes, split(joint), 32)


def test_batch_norm_is_folded_but_never_across_a_tap():
    norms = {}
    for tap in ("layers.0", "layers.1", "layers.2", "layers.3", "layers.4"):
        first, second = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        layers = (*first, *second, nn.Conv2d(4, 4, 3))
        passes, recording = both(double(Stack(*layers)), [tap])
        norms[tap] = targets(recording.forward).count(aten._native_batch_norm_legit_no_training.default)
        assert_equal(passes, recording)
    assert norms == {"layers.0": 1, "layers.1": 0, "layers.2": 1, "layers.3": 0, "layers.4": 0}


def test_nothing_above_the_first_tap_and_no_gradient_of_a_weight_is_computed(small_iresnet):
    passes = EagerPasses(small_iresnet, select_taps(small_iresnet, ["layer4.0.conv1", "layer4.0.conv2"]))
    joint = record(passes, 16)
    fold(joint)
    recording = split(joint)
    assert targets(recording.forward).count(aten.convolution.default) == 13
    assert targets(recording.backward).count(aten.convolution.default) == 1
    assert aten.convolution_backward.default not in targets(recording.backward)


def test_what_overwrites_a_tap_does_not_change_its_map(in_place):
    model = double(copy.deepcopy(in_place.network), 32)
    passes, recording = both(model, ["conv1", "relu", "conv2", "twice"])
    assert [tap.name for tap in passes.taps] == ["conv1", "relu", "conv2", "twice@1", "twice@2"]
    assert not any(str(target).endswith("_.default") for target in targets(recording.forward))
    assert_equal(passes, recording, 32)


class Branches(nn.Module):
    """What a recording cannot follow, or can."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 4, 3, 1, 1)
        self.fc = nn.Linear(4, DIMENSIONS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if self.kind == "values" and x.mean() > 0:
            x = -x
        if self.kind == "size" and x.shape[2] > 4:
            x = x * x
        if self.kind == "batch":
            x = x - x.mean(dim=0)
        if self.kind == "one number":
            x = x.reshape(1, 4, 16, 16)
        return self.fc(x.mean(dim=(2, 3)))


def test_a_branch_on_sizes_is_followed():
    assert_equal(*both(double(Branches("size")), ["conv"]))


@pytest.mark.parametrize("kind", ["values", "one number"])
def test_what_cannot_be_recorded_is_one_sentence(kind):
    with pytest.raises(RequestError, match=r"^[^\n]*net [^\n]*: use backend eager$"):
        both(double(Branches(kind)), ["conv"])

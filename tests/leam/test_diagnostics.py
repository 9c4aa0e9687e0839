"""Taps that are known to mislead are named, with the reason, and no others."""

import torch
from torch import nn

from leamfast import load_model
from leamfast.leam.diagnostics import tap_warnings
from leamfast.leam.taps import select_taps
from tests.leam.conftest import face_model


def reasons(
    model, layers: str, activation: str = "signed", registration: str = "resize"
) -> dict[str, set[str]]:
    """Tap -> the first words that tell the reasons apart."""
    found = tap_warnings(model, select_taps(model, layers), activation=activation, registration=registration)
    keys = {"cell covers": "coarse", "plain resize": "displaced", "behind a shortcut": "sum"}
    return {
        tap: {name for text in texts for words, name in keys.items() if words in text}
        for tap, texts in found.items()
    }


def test_residual_network():
    model = load_model("AF_R18=random:0")
    taps = "conv1,layer1.0.prelu,layer2.0,layer3.1.conv1,layer4.1,layer4.1.prelu"
    assert reasons(model, taps) == {
        "conv1": set(),
        "layer1.0.prelu": set(),
        "layer2.0": {"sum"},  # 28x28: 1.5 pixels off
        "layer3.1.conv1": {"displaced"},  # 14x14: 3.5 pixels off
        "layer4.1.prelu": {"displaced", "coarse"},
        "layer4.1": {"displaced", "coarse", "sum"},
    }
    right = reasons(model, taps, "positive", "receptive")
    assert right == {tap: {"coarse"} if "layer4" in tap else set() for tap in right}


def test_the_displacement_is_the_worst_cells():
    model = load_model("AF_R18=random:0")
    (text,) = tap_warnings(
        model, select_taps(model, "layer3.1.conv1"), activation="signed", registration="resize"
    )["layer3.1.conv1"]
    assert "up to 3.5 pixels" in text  # cell i of 14 sits on 8i, a plain resize puts it on 8i + 3.5


def test_a_container_that_ends_in_a_relu_is_no_sum():
    model = load_model("mobilefacenet=random:0")
    found = reasons(model, "features.2.conv.0,features.2", registration="receptive")
    assert found == {"features.2.conv.0": set(), "features.2": {"sum"}}


class Sorted(nn.Module):
    """Moves cells about as no rule knows, behind a first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 8, 1)
        self.conv2 = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(x).sort(dim=3).values).mean(dim=(2, 3))


def test_a_tap_that_cannot_be_registered_keeps_the_others_warnings():
    model = face_model(Sorted(), size=112)
    found = reasons(model, "conv1,conv2")
    assert found == {"conv1": {"displaced"}, "conv2": set()}

"""Tiny untrained networks of several input sizes, for runs whose embeddings cost next to nothing."""

from collections import OrderedDict

import torch
from torch import nn

HALF = {"channels": "rgb", "mean": (127.5,) * 3, "std": (127.5,) * 3}
SIZES = {"one": 32, "two": 32, "large": 80, "bright": 32}
PREPROCESSING = {name: {"size": size, **HALF} for name, size in SIZES.items()}


def spec(name: str) -> str:
    """The SPEC of one of the networks."""
    return f"tests.engine.occlusion_networks:{name}"


def one() -> nn.Module:
    """Crops of 32 pixels."""
    return _network(1, SIZES["one"])


def two() -> nn.Module:
    """Crops of 32 pixels, other weights."""
    return _network(2, SIZES["two"])


def large() -> nn.Module:
    """Crops of 80 pixels."""
    return _network(3, SIZES["large"])


def bright() -> nn.Module:
    """Crops of 32 pixels of which only what is brighter than a middle grey counts: what shines, and where.

    All weights of the convolutions are positive and there is no bias, so that black and grey come to nothing.
    """
    torch.manual_seed(4)
    convolutions = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.Conv2d(8, 12, 3, 2, 1, bias=False)]
    for convolution in convolutions:
        nn.init.uniform_(convolution.weight, 0, 1)
    layers = {
        "conv1": convolutions[0],
        "act1": nn.ReLU(),
        "conv2": convolutions[1],
        "act2": nn.ReLU(),
        "flat": nn.Flatten(),
        "fc": nn.Linear(12 * 8 * 8, 64, bias=False),
    }
    return nn.Sequential(OrderedDict(layers))


def _network(seed: int, size: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = {
        "conv1": nn.Conv2d(3, 8, 3, 2, 1),
        "act1": nn.PReLU(8),
        "conv2": nn.Conv2d(8, 12, 3, 2, 1),
        "act2": nn.PReLU(12),
        "flat": nn.Flatten(),
        "fc": nn.Linear(12 * (size // 4) ** 2, 24),
    }
    return nn.Sequential(OrderedDict(layers))

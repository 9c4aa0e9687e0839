"""The named models: architecture, preprocessing, and where their weights are published."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from leamfast.models.demo import demo_network
from leamfast.models.iresnet import IRESNET_BLOCKS, IResNet
from leamfast.models.mobilefacenet import MobileFaceNet
from leamfast.models.preprocessing import Preprocessing

__all__ = ["ZOO", "NamedModel", "build"]

HALF = (127.5, 127.5, 127.5)
ARCFACE = Preprocessing(112, "rgb", HALF, HALF)
IMAGENET = Preprocessing(112, "rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@dataclass(frozen=True)
class NamedModel:
    """A model that `--model NAME=WEIGHTS` can name.

    Attributes:
        name: as the user writes it.
        architecture: the network's name; models that share it load the same layout.
        network: makes the network with arbitrary weights.
        preprocessing: what it expects of its input.
        weights: what file it takes and who publishes it; empty for the model that ships with leamfast.
    """

    name: str
    architecture: str
    network: Callable[[], nn.Module]
    preprocessing: Preprocessing
    weights: str


def _iresnet(depth: int) -> Callable[[], nn.Module]:
    return partial(IResNet, IRESNET_BLOCKS[depth])


def _named() -> dict[str, NamedModel]:
    models = [NamedModel("demo", "demo", demo_network, ARCFACE, "")]
    for depth in IRESNET_BLOCKS:
        models.append(
            NamedModel(f"iresnet{depth}", f"iresnet{depth}", _iresnet(depth), ARCFACE,
                       "any state dict with arcface_torch's keys")
        )  # fmt: skip
    for family, data in (("AF", "ArcFace on MS1MV3"), ("CF", "CosFace on Glint360K")):
        for depth in (18, 34, 50, 100):
            models.append(
                NamedModel(f"{family}_R{depth}", f"iresnet{depth}", _iresnet(depth), ARCFACE,
                           f"backbone.pth, {data}: model zoo of InsightFace's arcface_torch")
            )  # fmt: skip
    models.append(
        NamedModel("mobilefacenet", "mobilefacenet", MobileFaceNet, IMAGENET,
                   "mobilefacenet.pt: releases of foamliu/MobileFaceNet")
    )  # fmt: skip
    return {model.name: model for model in models}


def build(model: NamedModel, device: str = "cpu", seed: int | None = None) -> nn.Module:
    """A network of this architecture in evaluation mode, on `device` (`meta` costs no memory).

    Args:
        model: which network.
        device: where its parameters lie.
        seed: draws the weights reproducibly; None leaves the caller's generator in charge.
    """
    with torch.device(device), torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        return model.network().eval().requires_grad_(False)


ZOO: dict[str, NamedModel] = _named()

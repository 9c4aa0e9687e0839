"""The named models: architecture, preprocessing, and where their weights are published."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import torch
from torch import nn

from leamfast.errors import RequestError
from leamfast.models.preprocessing import Preprocessing

__all__ = ["ZOO", "NamedModel", "build", "make", "random_seed"]

HALF = (127.5, 127.5, 127.5)
ARCFACE = Preprocessing(112, "rgb", HALF, HALF)
ADAFACE = Preprocessing(112, "bgr", HALF, HALF)
FACENET = Preprocessing(160, "rgb", HALF, (128.0, 128.0, 128.0))
IMAGENET = Preprocessing(112, "rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@dataclass(frozen=True)
class NamedModel:
    """A model that `--model NAME=WEIGHTS` can name.

    Attributes:
        name: as the user writes it.
        architecture: the network's name; models that share it load the same layout.
        network: makes the network with arbitrary weights.
        preprocessing: what it expects of its input.
        weights: what file it takes; empty for the model that ships with leamfast.
        published: where that file is to be had.
        ignored: what the names of tensors begin with that the file may hold and the network has no use for.
    """

    name: str
    architecture: str
    network: Callable[[], nn.Module]
    preprocessing: Preprocessing
    weights: str = ""
    published: str = ""
    ignored: tuple[str, ...] = ()


def _network(module: str, name: str, *arguments: object) -> nn.Module:
    """A network of `leamfast.models`; a compiled program runs where they cannot be imported."""
    made: nn.Module = getattr(import_module(f"leamfast.models.{module}"), name)(*arguments)
    return made


def _iresnets() -> list[NamedModel]:
    networks = {depth: partial(_network, "iresnet", "iresnet", depth) for depth in (18, 34, 50, 100, 200)}
    models = [
        NamedModel(f"iresnet{depth}", f"iresnet{depth}", network, ARCFACE,
                   "any state dict with arcface_torch's keys")
        for depth, network in networks.items()
    ]  # fmt: skip
    for family, data in (("AF", "ArcFace on MS1MV3"), ("CF", "CosFace on Glint360K")):
        for depth in (18, 34, 50, 100):
            models.append(
                NamedModel(f"{family}_R{depth}", f"iresnet{depth}", networks[depth], ARCFACE,
                           f"backbone.pth, {data}",
                           "github.com/deepinsight/insightface")
            )  # fmt: skip
    return models


def _inception_resnets() -> list[NamedModel]:
    published = "github.com/timesler/facenet-pytorch"
    files = {
        "IR_CASIA": "20180408-102900-casia-webface.pt",
        "inceptionresnetv1": "any with its keys: 20180402-114759-vggface2.pt",
    }
    network = partial(_network, "inception_resnet", "InceptionResnetV1")
    return [
        NamedModel(name, "inceptionresnetv1", network, FACENET, file, published, ("logits.",))
        for name, file in files.items()
    ]


def _adafaces() -> list[NamedModel]:
    return [
        NamedModel(f"AdaFace_IR{name}", f"adaface_ir{name}",
                   partial(_network, "adaface", "AdaFaceIR", depth), ADAFACE,
                   f"adaface_ir{name}_*.ckpt", "github.com/mk-minchul/AdaFace")
        for name, depth in ((18, 18), (50, 50), (101, 100))
    ]  # fmt: skip


def _named() -> dict[str, NamedModel]:
    mobilefacenet = NamedModel(
        "mobilefacenet", "mobilefacenet", partial(_network, "mobilefacenet", "MobileFaceNet"), IMAGENET,
        "mobilefacenet.pt", "github.com/foamliu/MobileFaceNet",
    )  # fmt: skip
    demo = NamedModel("demo", "demo", partial(_network, "demo", "demo_network"), ARCFACE)
    models = [demo, *_iresnets(), *_inception_resnets()]
    return {model.name: model for model in (*models, *_adafaces(), mobilefacenet)}


def build(model: NamedModel, device: str = "cpu", seed: int | None = None) -> nn.Module:
    """A named model's network in evaluation mode, with arbitrary weights; see `make`."""
    return make(model.network, device, seed)


def make(network: Callable[[], nn.Module], device: str = "cpu", seed: int | None = None) -> nn.Module:
    """A network in evaluation mode, its parameters frozen, on `device` (`meta` costs no memory).

    Args:
        network: makes it.
        device: where its parameters lie.
        seed: draws the weights reproducibly; None leaves the caller's generator in charge.
    """
    with torch.device(device), torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        return network().eval().requires_grad_(False)


def random_seed(source: str, spec: str) -> int | None:
    """The seed of a source `random:SEED`; None for any other source.

    Raises:
        RequestError: the seed is no whole number that torch takes.
    """
    if not source.startswith("random:"):
        return None
    seed = source.removeprefix("random:")
    if not seed.isdecimal() or int(seed) >= 2**63:
        raise RequestError(f"model {spec!r}: random: takes a seed, a whole number below 2^63, got {seed!r}")
    return int(seed)


ZOO: dict[str, NamedModel] = _named()

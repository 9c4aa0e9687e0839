"""Peers on equal terms: the same models, images and references, by their authors' own packages.

The score that they explain is cos(f(x), r). Their maps go through their own resizing and scaling, as a user
gets them.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from leamfast_bench.truth.methods import BATCH, Maps, Method, Query, residual_taps, tap_kind

__all__ = ["CAM_TAPS", "PACKAGES", "PRIORS", "missing", "whole"]

CAM_TAPS = ("layer2.0.prelu", "layer3.0.prelu", "layer3.0", "layer4.0")
GRADIENT_STEPS = 16
WINDOW, STRIDE = 14, 7  # of the occluding square, pixels


class _Score(nn.Module):
    """Images and references -> cos(f(x), r), (N,)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, references: Tensor) -> Tensor:
        return torch.cosine_similarity(self.network(images), references)


def whole(name: str, maps: Tensor, map_name: str = "", kind: str = "input") -> Maps:
    """Maps (N, h, w) of a method without taps of ours, to be resized plainly."""
    return Maps(name, map_name, kind, min(maps.shape[-2:]), maps, None, torch.arange(len(maps)))


def grad_cam_package(query: Query) -> Iterator[Maps]:
    """LayerCAM and Grad-CAM of the score at several taps, by pytorch-grad-cam."""
    from pytorch_grad_cam import GradCAM, LayerCAM

    modules = dict(query.model.network.named_modules())
    query.model.network.requires_grad_(True)  # the package needs a graph from the parameters on
    try:
        for name, method in (("LayerCAM (grad-cam)", LayerCAM), ("Grad-CAM (grad-cam)", GradCAM)):
            for tap in (tap for tap in residual_taps(query.model) if tap.name in CAM_TAPS):
                with method(query.model.network, [modules[tap.name]]) as cam:
                    maps = torch.cat([_cam(cam, query, start) for start in _starts(query)])
                yield replace(whole(name, maps, tap.name, tap_kind(tap)), cells=tap.height)
    finally:
        query.model.network.requires_grad_(False)


def _cam(cam: Callable, query: Query, start: int) -> Tensor:
    part = slice(start, start + BATCH)
    targets = [partial(_cosine, reference=reference) for reference in query.mean[part]]
    return torch.from_numpy(np.asarray(cam(input_tensor=query.images[part], targets=targets))).float()


def _cosine(output: Tensor, reference: Tensor) -> Tensor:
    return torch.cosine_similarity(output, reference, dim=0)


def captum_package(query: Query) -> Iterator[Maps]:
    """Gradient x input, integrated gradients from black, and occlusion of the score, by captum.

    Attributions of the colours are added in magnitude; occlusion is signed, and its positive part is taken.
    """
    from captum.attr import InputXGradient, IntegratedGradients, Occlusion

    score = _Score(query.model.network)
    black = query.model.preprocess(np.zeros((1, *query.images.shape[2:], 3), np.uint8))
    methods: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "gradient x input (captum)": lambda x, r: (
            InputXGradient(score).attribute(x, additional_forward_args=r).abs().sum(1)
        ),
        "integrated gradients (captum)": lambda x, r: (
            IntegratedGradients(score)
            .attribute(x, black, additional_forward_args=r, n_steps=GRADIENT_STEPS, internal_batch_size=128)
            .abs()
            .sum(1)
        ),
        "occlusion (captum)": lambda x, r: (
            Occlusion(score)
            .attribute(
                x,
                sliding_window_shapes=(3, WINDOW, WINDOW),
                strides=(3, STRIDE, STRIDE),
                baselines=black,
                additional_forward_args=r,
                perturbations_per_eval=8,
            )
            .clamp_min(0)
            .sum(1)
        ),
    }
    for name, method in methods.items():
        parts = []
        for start in _starts(query):
            part = slice(start, start + BATCH)
            images = query.images[part].clone().requires_grad_()
            parts.append(method(images, query.mean[part]).detach().float())
        yield whole(name, torch.cat(parts))


def centre_prior(query: Query) -> Iterator[Maps]:
    """A Gaussian at the centre of the picture, a quarter of the side wide: no model at all."""
    size = query.images.shape[-1]
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    bump = torch.exp(-((axis[:, None] ** 2 + axis**2) / (2 * (size / 4) ** 2)))
    yield whole("centre prior", bump.expand(len(query.images), -1, -1).to(query.images.device))


def edges(query: Query) -> Iterator[Maps]:
    """Blurred edges of the picture itself: no model at all."""
    grey = query.images.mean(dim=1, keepdim=True)
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=grey.device)
    kernels = torch.stack([sobel, sobel.T])[:, None]
    strength = functional.conv2d(functional.pad(grey, (1, 1, 1, 1), "replicate"), kernels).norm(dim=1)
    yield whole("edges", functional.avg_pool2d(strength[:, None], 5, 1, 2)[:, 0])


def random_maps(query: Query) -> Iterator[Maps]:
    """Random pixels, seeded by row: no model at all."""
    size = query.images.shape[-1]
    rows = [
        torch.rand(size, size, generator=torch.Generator().manual_seed(row))
        for row in range(len(query.images))
    ]
    yield whole("random", torch.stack(rows).to(query.images.device))


def _starts(query: Query) -> range:
    return range(0, len(query.images), BATCH)


PACKAGES: dict[str, Method] = {"pytorch_grad_cam": grad_cam_package, "captum": captum_package}
"""Package -> the methods that it brings."""

PRIORS: dict[str, Method] = {"centre prior": centre_prior, "edges": edges, "random": random_maps}
"""What needs no model, which a map must beat."""


def missing(package: str) -> str:
    """Why a package's methods cannot be had here, or nothing."""
    try:
        importlib.import_module(package)
    except ImportError as exc:
        return (
            f"{package} cannot be imported ({exc}): pip install 'leamfast[bench]', and grad-cam with "
            "--no-deps, because it would bring an OpenCV that overwrites the one that is there"
        )
    return ""

"""Other packages, each as its documentation shows it, and in the best form that it allows.

As documented: a network whose parameters nobody froze, and one layer a call. In one pass: frozen
parameters, the first tap's activation as the leaf, all layers at once, no resizing and no scaling of maps.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from leamfast_bench.maps.case import Case
from leamfast_bench.maps.row import Call, Row, See

__all__ = ["PACKAGES", "peer_rows"]


class _Losses(nn.Module):
    """Images -> 1 - cos(f(x), r) as the scores of one class, (N, 1)."""

    def __init__(self, network: nn.Module, references: Tensor) -> None:
        super().__init__()
        self.network, self.references = network, references

    def forward(self, images: Tensor) -> Tensor:
        return (1 - torch.cosine_similarity(self.network(images), self.references))[:, None]


def _leaf(network: nn.Module, tap: str) -> None:
    """Start the graph of a network with frozen parameters at a tap."""
    network.get_submodule(tap).register_forward_hook(
        lambda module, args, output: output if output.requires_grad else output.requires_grad_()
    )


def _one_minus_cosine(embedding: Tensor, reference: Tensor) -> Tensor:
    return 1 - torch.cosine_similarity(embedding, reference, dim=-1)


def grad_cam_documented(case: Case) -> Call:
    """LayerCAM of pytorch-grad-cam, one layer a call; it ascends its targets, one of them an image."""
    from pytorch_grad_cam import LayerCAM

    network = case.trainable
    targets = [partial(_one_minus_cosine, reference=reference) for reference in case.references]

    def call(see: See) -> object:
        found = []
        for tap in case.taps:
            with LayerCAM(model=network, target_layers=[network.get_submodule(tap)]) as cam:
                found.append(cam(input_tensor=case.images, targets=targets))
                kept = cam.activations_and_grads
                see(tap, act=kept.activations[0], grad=kept.gradients[0])
        network.zero_grad(set_to_none=True)
        return found

    return call


def grad_cam_one_pass(case: Case) -> Call:
    """Hooks of pytorch-grad-cam on all layers, one loss for the batch, and its aggregation of each layer."""
    from pytorch_grad_cam import LayerCAM

    network = case.frozen()
    _leaf(network, case.taps[0])
    layers = [network.get_submodule(tap) for tap in case.taps]
    cam = LayerCAM(model=network, target_layers=layers)

    def call(see: See) -> object:
        kept = cam.activations_and_grads
        (1 - torch.cosine_similarity(kept(case.images), case.references)).sum().backward()
        found = []
        for tap, layer, act, grad in zip(case.taps, layers, kept.activations, kept.gradients, strict=True):
            arrays = act.numpy(), grad.numpy()
            found.append(np.maximum(cam.get_cam_image(case.images, layer, None, *arrays, False), 0))
            see(tap, map=found[-1])
        kept.clear()
        return found

    return call


def captum_documented(case: Case) -> Call:
    """Gradient x activation of captum, one layer a call; the sum over channels is left to its user."""
    from captum.attr import LayerGradientXActivation

    network = case.trainable
    images = case.images.clone().requires_grad_()

    def losses(images: Tensor, references: Tensor) -> Tensor:
        return 1 - torch.cosine_similarity(network(images), references)

    def call(see: See) -> object:
        found = []
        for tap in case.taps:
            method = LayerGradientXActivation(losses, network.get_submodule(tap))
            product = method.attribute(images, additional_forward_args=case.references)
            see(tap, product=product)
            found.append(product.detach().sum(dim=1))
        return found

    return call


def captum_one_pass(case: Case) -> Call:
    """Gradient x activation of captum for a list of layers, of which it makes the first the leaf itself."""
    from captum.attr import LayerGradientXActivation

    network = case.frozen()

    def losses(images: Tensor, references: Tensor) -> Tensor:
        return 1 - torch.cosine_similarity(network(images), references)

    method = LayerGradientXActivation(losses, [network.get_submodule(tap) for tap in case.taps])

    def call(see: See) -> object:
        products = method.attribute(case.images, additional_forward_args=case.references)
        found = []
        for tap, product in zip(case.taps, products, strict=True):
            see(tap, product=product)
            found.append(product.detach().sum(dim=1))
        return found

    return call


def torchcam_documented(case: Case) -> Call:
    """LayerCAM of torchcam, one layer a call; its maps are scaled to 0..1."""
    from torchcam.methods import LayerCAM

    scores_of = _Losses(case.trainable, case.references)

    def call(see: See) -> object:
        found = []
        for tap in case.taps:
            with LayerCAM(scores_of, f"network.{tap}") as extractor:
                scores = scores_of(case.images)
                found += extractor(class_idx=0, scores=scores)
                see(tap, act=extractor.hook_a[0], grad=extractor.hook_g[0])
        return found

    return call


def torchcam_one_pass(case: Case) -> Call:
    """LayerCAM of torchcam for a list of layers, unscaled."""
    from torchcam.methods import LayerCAM

    scores_of = _Losses(case.frozen(), case.references)
    _leaf(scores_of.network, case.taps[0])
    extractor = LayerCAM(scores_of, [f"network.{tap}" for tap in case.taps])

    def call(see: See) -> object:
        found = extractor(class_idx=0, scores=scores_of(case.images), normalized=False)
        for tap, maps in zip(case.taps, found, strict=True):
            see(tap, map=maps)
        extractor.reset_hooks()
        return found

    return call


PACKAGES: dict[str, tuple[Callable[[Case], Call], Callable[[Case], Call]]] = {
    "pytorch-grad-cam": (grad_cam_documented, grad_cam_one_pass),
    "captum": (captum_documented, captum_one_pass),
    "torchcam": (torchcam_documented, torchcam_one_pass),
}
"""Package -> as documented, and in one pass."""


def peer_rows() -> Iterator[Row]:
    """Two rows a package."""
    for package, (documented, one_pass) in PACKAGES.items():
        yield Row(f"{package}, in one pass", "one pass", one_pass)
        yield Row(f"{package}, as documented", "documented", documented)

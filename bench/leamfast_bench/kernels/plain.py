"""The operations as a user of PyTorch would write them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "aggregate",
    "aggregate_backward",
    "matrix",
    "occlude",
    "pairs",
    "region_share",
    "region_share_scattered",
    "roots",
    "support",
]


def aggregate(acts: Tensor, grads: Tensor) -> Tensor:
    """ReLU of the sum of ReLU(G) * A over the channels."""
    return torch.relu((torch.relu(grads) * acts).sum(dim=1))


def aggregate_backward(
    acts: Tensor, grads: Tensor, scale: Tensor, shift: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """Backward over a BatchNorm and a PReLU to the tap, then its map."""
    scale, shift, slope = (x.to(acts.dtype)[:, None, None] for x in (scale, shift, slope))
    grads = torch.where(acts * scale + shift > 0, grads, grads * slope) * scale
    return aggregate(acts, grads), grads


def support(maps: Tensor, percents: Sequence[float], side: int) -> Tensor:
    """One torch.topk at the largest percentage, and a scatter for each."""
    largest, counts = _largest(maps, percents, side)
    masks = torch.zeros((len(maps), len(counts), side * side), dtype=torch.bool, device=maps.device)
    for i, count in enumerate(counts):
        masks[:, i].scatter_(1, largest.indices[:, :count], largest.values[:, :count] > 0)
    return masks.unflatten(2, (side, side))


def region_share(
    maps: Tensor, labels: Tensor, percents: Sequence[float], side: int, classes: int = 19
) -> tuple[Tensor, Tensor]:
    """The masks of `support`, and how much of each class is in them."""
    masks = support(maps, percents, side)
    sizes = masks.sum(dim=(2, 3))
    inside = [(masks & (labels == label)[:, None]).sum(dim=(2, 3)) for label in range(classes)]
    return torch.stack(inside, dim=2) / sizes[:, :, None], sizes.int()


def region_share_scattered(
    maps: Tensor, labels: Tensor, percents: Sequence[float], side: int, classes: int = 19
) -> tuple[Tensor, Tensor]:
    """One torch.topk at the largest percentage, and a scatter into the classes for each."""
    largest, counts = _largest(maps, percents, side)
    inside = labels.flatten(1).gather(1, largest.indices).long()
    positive = (largest.values > 0).float()
    found = torch.zeros((len(maps), len(counts), classes), device=maps.device)
    for i, count in enumerate(counts):
        found[:, i].scatter_add_(1, inside[:, :count], positive[:, :count])
    sizes = found.sum(dim=2, keepdim=True)
    return found / sizes, sizes[:, :, 0].int()


def occlude(images: Tensor, maps: Tensor, percents: Sequence[float], fills: Tensor) -> Tensor:
    """A torch.where for each percentage and fill; fills (F, C, 1, 1)."""
    masks = support(maps, percents, images.shape[2])
    occluded = [torch.where(masks[:, i, None], fill, images) for i in range(len(percents)) for fill in fills]
    return torch.stack(occluded, dim=1).unflatten(1, (len(percents), len(fills)))


def _largest(maps: Tensor, percents: Sequence[float], side: int) -> tuple[torch.return_types.topk, list[int]]:
    resized = F.interpolate(maps[:, None], size=(side, side), mode="bilinear", align_corners=False)
    counts = [round(percent / 100 * side * side) for percent in percents]
    return resized.flatten(1).topk(max(counts), dim=1), counts


def pairs(p: Tensor, q: Tensor, listed: Tensor | None = None) -> Tensor:
    """Sum of sqrt(p q) of maps divided by their sums."""
    if listed is not None:
        p, q = p[listed[:, 0]], q[listed[:, 1]]
    p = p / p.sum(dim=(1, 2), keepdim=True)
    q = q / q.sum(dim=(1, 2), keepdim=True)
    return (p * q).sqrt().sum(dim=(1, 2))


def roots(maps: Tensor) -> Tensor:
    """Square roots of maps divided by their sums, (N, h * w)."""
    return (maps / maps.sum(dim=(1, 2), keepdim=True)).sqrt().flatten(1)


def matrix(p: Tensor, q: Tensor) -> Tensor:
    """A matrix product of square roots."""
    return roots(p) @ roots(q).T

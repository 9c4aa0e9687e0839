"""Region shares of maps: how much of a map's support, or of its mass, lies in each class of a label image.

    p < 100:  share_c = |{x in S_p : label(x) = c}| / |S_p|,              size = |S_p|
    p = 100:  share_c = sum_{label(x) = c} ReLU(U(x)) / sum ReLU(U(x)),   size = |{x : U(x) > 0}|

U is the upsampled map and S_p its support. maps (N, h, w) and labels (N, H, W) -> shares (N, P, classes) and
sizes (N, P). Upsampling, selection and counting are done for a block of maps at a time; on a GPU,
up to 25600 pixels, in one kernel for eight percents, and one for 100 percent. No mask is written.

Reference: arXiv 2509.17457, which measures the share of facial regions in the most important pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leamfast_kernels import selection
from leamfast_kernels.operators import operator
from leamfast_kernels.support import support_reference
from leamfast_kernels.tuning import SELECTION_BLOCK
from leamfast_kernels.upsample import Centres, Size, check_centres, check_maps, check_size, resample


def region_share_reference(
    maps: Tensor,
    labels: Tensor,
    percents: Sequence[float],
    height: int,
    width: int,
    centres: Sequence[float] | None = None,
    classes: int = 19,
) -> tuple[Tensor, Tensor]:
    """Shares and sizes from the masks of `support_reference`, one class at a time, in float64."""
    mass = resample(maps.float(), height, width, centres).clamp_min(0).double()
    masks = support_reference(maps, percents, height, width, centres)
    whole = torch.tensor([percent == 100 for percent in percents], device=maps.device)[:, None, None]
    weights = torch.where(whole, mass[:, None], 1.0) * masks
    inside = [(weights * (labels == label)[:, None]).sum(dim=(2, 3)) for label in range(classes)]
    shares = (torch.stack(inside, dim=2) / weights.sum(dim=(2, 3))[:, :, None]).float()
    usable = selection.finite(maps.float())[:, None]
    sizes = torch.where(usable, masks.sum(dim=(2, 3)), -1).int()
    return shares.masked_fill(~usable[:, :, None], torch.nan), sizes


def _region_share_checked(
    maps: Tensor,
    labels: Tensor,
    percents: list[float],
    height: int,
    width: int,
    centres: list[float] | None,
    classes: int,
) -> tuple[Tensor, Tensor]:
    # Here and not in the public function, where a look at the values would break a compiled graph.
    if labels.numel() and int(labels.max()) >= classes:
        raise ValueError(f"labels must be below classes = {classes}, got {int(labels.max())}")
    return _in_blocks(maps, labels, percents, height, width, centres, classes)


def _region_share_cuda(
    maps: Tensor,
    labels: Tensor,
    percents: list[float],
    height: int,
    width: int,
    centres: list[float] | None,
    classes: int,
) -> tuple[Tensor, Tensor]:
    if height * width > selection.HELD:
        if classes == 256:  # no label of a byte is none of them
            return _in_blocks(maps, labels, percents, height, width, centres, classes)
        # One class more takes in the labels that are none: a look at them would make the host wait.
        known = labels.clamp_max(classes)
        shares, sizes = _in_blocks(maps, known, percents, height, width, centres, classes + 1)
        foreign = (labels.flatten(1) >= classes).any(dim=1)[:, None, None]
        return shares[:, :, :classes].masked_fill(foreign, torch.nan), sizes
    from leamfast_kernels.gpu.region_share import launch_region_share

    return launch_region_share(maps, labels, percents, height, width, centres, classes)


def _in_blocks(
    maps: Tensor,
    labels: Tensor,
    percents: Sequence[float],
    height: int,
    width: int,
    centres: Sequence[float] | None,
    classes: int,
) -> tuple[Tensor, Tensor]:
    count = maps.shape[0]
    shares = torch.empty((count, len(percents), classes), dtype=torch.float32, device=maps.device)
    sizes = torch.empty((count, len(percents)), dtype=torch.int32, device=maps.device)
    step = max(1, SELECTION_BLOCK // (height * width))
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        block = maps[rows].float()
        values = resample(block, height, width, centres).flatten(1)
        unusable = ~selection.finite(block)[:, None]
        weights, counts = _per_class(values, labels[rows].flatten(1), percents, height, width, classes)
        torch.div(weights, weights.sum(dim=2, keepdim=True), out=weights)
        shares[rows] = weights.masked_fill_(unusable[:, :, None], torch.nan)
        sizes[rows] = counts.masked_fill_(unusable, -1)
    return shares, sizes


def _per_class(
    values: Tensor, labels: Tensor, percents: Sequence[float], height: int, width: int, classes: int
) -> tuple[Tensor, Tensor]:
    """Weight of each class (N, P, classes) float64, and pixels of each support (N, P) int64."""
    maps, pixels = values.shape
    weights = torch.zeros((maps, len(percents), classes), dtype=torch.float64, device=values.device)
    sizes = torch.zeros((maps, len(percents)), dtype=torch.int64, device=values.device)
    counts = [selection.pixel_count(percent, height, width) for percent in percents]
    partial = [column for column, percent in enumerate(percents) if percent < 100 and counts[column]]
    if partial:
        steps = sorted({counts[column] for column in partial})
        within = _within(values, labels, steps, classes)
        for column in partial:
            weights[:, column] = within[:, steps.index(counts[column])]
            sizes[:, column] = within[:, steps.index(counts[column])].sum(dim=1)
    if 100 in percents:
        mass = _sum_by_class(labels.long(), values.clamp_min(0).double(), classes)
        whole = [column for column, percent in enumerate(percents) if percent == 100]
        weights[:, whole] = mass[:, None]
        sizes[:, whole] = (values > 0).sum(dim=1, keepdim=True)
    return weights, sizes


def _within(values: Tensor, labels: Tensor, counts: Sequence[int], classes: int) -> Tensor:
    """Pixels of each class in nested supports of `counts` pixels, (N, len(counts), classes) int64."""
    index, number = selection.nested(values, counts)
    places = number.mul_(classes).add_(labels.gather(1, index))
    found = _sum_by_class(places, torch.ones_like(places), (len(counts) + 1) * classes).unflatten(
        1, (len(counts) + 1, classes)
    )
    # Those that are in all supports are in the smallest, and so on.
    return found[:, 1:].flip(1).cumsum(dim=1)


def _sum_by_class(labels: Tensor, weights: Tensor, classes: int) -> Tensor:
    """Sum of the weights (N, K) of each class, (N, classes); on a CPU added in the order of the pixels."""
    return weights.new_zeros((labels.shape[0], classes)).scatter_add_(1, labels, weights)


def _region_share_fake(
    maps: Tensor,
    labels: Tensor,
    percents: list[float],
    height: int,
    width: int,
    centres: list[float] | None,
    classes: int,
) -> tuple[Tensor, Tensor]:
    shares = maps.new_empty((maps.shape[0], len(percents), classes), dtype=torch.float32)
    return shares, maps.new_empty((maps.shape[0], len(percents)), dtype=torch.int32)


_region_share = operator(
    "region_share(Tensor maps, Tensor labels, float[] percents, SymInt height, SymInt width, "
    "float[]? centres, SymInt classes) -> (Tensor, Tensor)",
    _region_share_checked,
    _region_share_cuda,
    _region_share_fake,
)


def region_share(
    maps: Tensor,
    labels: Tensor,
    percents: Sequence[float],
    size: Size,
    centres: Centres | None = None,
    classes: int = 19,
) -> tuple[Tensor, Tensor]:
    """Share of each class in the support of maps, and at 100 percent in their mass.

    The support is that of `support`, pixel for pixel. At p = 100 the shares are those of the sum of the
    positive pixels of the upsampled map, added in float64. There is no gradient.

    Args:
        maps: maps, shape (N, h, w), float32, float16, bfloat16 or float64, any layout.
        labels: class of every pixel, shape (N, H, W), uint8, below `classes`; on the device of `maps`. Any
            other label raises on a CPU; on a GPU, where a look at it would make the host wait, all shares of
            its map are NaN.
        percents: P percentages of the image area, each in (0, 100], in any order.
        size: side or (H, W) of the upsampled map in pixels.
        centres: place of the cells, as for `upsample`.
        classes: number of classes, 1 to 256.

    Returns:
        shares: shape (N, P, classes), float32, in [0, 1], summing to 1 over the classes; NaN where the
            support is empty or the map holds a NaN or an infinity.
        sizes: pixels of the support (at 100: positive pixels), shape (N, P), int32; -1 for such a map.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a shape, device, label, percent, size, step or number of classes is out of range.

    >>> maps = torch.tensor([[[3.0, 0.0], [2.0, 1.0]]])
    >>> labels = torch.tensor([[[0, 1], [1, 1]]], dtype=torch.uint8)
    >>> shares, sizes = region_share(maps, labels, [25, 100], 2, classes=2)
    >>> shares.tolist(), sizes.tolist()
    ([[[1.0, 0.0], [0.5, 0.5]]], [[1, 3]])
    """
    check_maps(maps)
    values = selection.check_percents(percents)
    height, width = check_size(size)
    flat = check_centres(centres)
    if not isinstance(classes, int) or isinstance(classes, bool):
        raise TypeError(f"classes must be an int, got {classes!r}")
    if not 1 <= classes <= 256:
        raise ValueError(f"classes must lie in 1 to 256, got {classes}")
    if not isinstance(labels, Tensor) or labels.dtype != torch.uint8:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels must be a uint8 tensor, got {got}")
    if tuple(labels.shape) != (maps.shape[0], height, width):
        expected = (maps.shape[0], height, width)
        raise ValueError(f"labels must have shape (N, H, W) = {expected}, got {tuple(labels.shape)}")
    if labels.device != maps.device:
        raise ValueError(f"labels must be on the device of maps, {maps.device}, got {labels.device}")
    shares, sizes = _region_share(maps, labels, values, height, width, flat, classes)
    return shares, sizes

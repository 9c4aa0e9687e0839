"""LayerCAM aggregation of activations and gradients into one map per image.

    M = ReLU( sum_k ReLU(G^k) * A^k ),   acts A and grads G (N, C, h, w) -> M (N, h, w)

The product, the sum over channels and both ReLUs are done block by block, so that no temporary of the size of
the activations is written; a GPU reads A and G once and writes M once. Products and sums are float32 whatever
the input (float64 for float64 input). `aggregate_statistics` gives the largest pixel and the sum of each map
too, on a GPU from the same pass.

Reference: Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, IEEE TIP 30
(2021), eq. 6 and 7; for embeddings arXiv 2509.17457.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from leamfast_kernels.operators import operator
from leamfast_kernels.tuning import AGGREGATE_BLOCK

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Dtype in which maps are summed and returned: float64 for float64, float32 for every other."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def aggregate_reference(acts: Tensor, grads: Tensor) -> Tensor:
    """M = ReLU( sum_k ReLU(G^k) * A^k ), as written; same arguments and result as `aggregate`."""
    dtype = accumulator(acts.dtype)
    return (grads.to(dtype).clamp_min(0) * acts.to(dtype)).sum(dim=1).clamp_min(0).contiguous()


def _aggregate_in_blocks(acts: Tensor, grads: Tensor) -> Tensor:
    images, channels, height, width = acts.shape
    dtype = accumulator(acts.dtype)
    # Whole images only: the sum of an image then runs in the same order whatever else is in the batch.
    step = max(1, AGGREGATE_BLOCK // (channels * height * width))
    if images <= step:
        return _products(acts, grads, dtype).sum(dim=1).clamp_min_(0).contiguous()
    # Blocks of even size: a last block of one small image would be too little work for several threads.
    step = math.ceil(images / math.ceil(images / step))
    maps = torch.empty((images, height, width), dtype=dtype, device=acts.device)
    block = torch.empty_like(grads[:step], dtype=dtype)
    for start in range(0, images, step):
        stop = min(start + step, images)
        products = _products(acts[start:stop], grads[start:stop], dtype, block[: stop - start])
        torch.sum(products, dim=1, out=maps[start:stop])
    return maps.clamp_min_(0)


def _products(acts: Tensor, grads: Tensor, dtype: torch.dtype, out: Tensor | None = None) -> Tensor:
    """ReLU(G) * A in `dtype`, written to `out` where it is given."""
    if grads.dtype == dtype:
        return torch.clamp_min(grads, 0, out=out).mul_(acts)
    widened = grads.to(dtype) if out is None else out.copy_(grads)
    return widened.clamp_min_(0).mul_(acts)


def _aggregate_cuda(acts: Tensor, grads: Tensor) -> Tensor:
    from leamfast_kernels.gpu.aggregate import launch_aggregate

    return launch_aggregate(acts, grads)


def _aggregate_fake(acts: Tensor, grads: Tensor) -> Tensor:
    images, _, height, width = acts.shape
    return acts.new_empty((images, height, width), dtype=accumulator(acts.dtype))


_aggregate = operator(
    "aggregate(Tensor acts, Tensor grads) -> Tensor", _aggregate_in_blocks, _aggregate_cuda, _aggregate_fake
)


def aggregate(acts: Tensor, grads: Tensor) -> Tensor:
    """Saliency map M = ReLU( sum_k ReLU(G^k) * A^k ) of every image.

    The value of an image does not depend on the rest of the batch: on a CPU it is the same to the bit. (The
    one exception is a map of a single cell with 32768 channels or more.) The result carries no gradient.

    Args:
        acts: activations A at a tap, shape (N, C, h, w), float32, float16, bfloat16 or float64, any layout.
        grads: gradients G of the target with respect to `acts`; same shape, dtype and device, any layout.

    Returns:
        Maps, shape (N, h, w), contiguous, at least 0, in units of the target; float32, or float64 for
        float64. NaN where a product is NaN.

    Raises:
        TypeError: an argument is no tensor, or its dtype is none of the four.
        ValueError: the shapes, dtypes or devices differ, or `acts` is not (N, C, h, w) with C, h, w > 0.

    Reference: Jiang et al., LayerCAM, IEEE TIP 30 (2021), eq. 6 and 7; arXiv 2509.17457.

    >>> acts = torch.tensor([[[[2.0, 1.0]], [[3.0, -4.0]]]])
    >>> grads = torch.tensor([[[[1.0, 1.0]], [[-1.0, 0.5]]]])
    >>> aggregate(acts, grads)
    tensor([[[2., 0.]]])
    """
    check_pair(acts, grads)
    maps: Tensor = _aggregate(acts, grads)
    return maps


class Statistics(NamedTuple):
    """Maps (N, h, w), the largest pixel of each and the sum of each, (N,)."""

    maps: Tensor
    maxima: Tensor
    sums: Tensor


def _statistics_of_maps(acts: Tensor, grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    maps = _aggregate(acts, grads)
    return maps, maps.amax(dim=(1, 2)), maps.sum(dim=(1, 2), dtype=torch.float64).to(maps.dtype)


def _statistics_cuda(acts: Tensor, grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from leamfast_kernels.gpu.aggregate import launch_statistics

    return launch_statistics(acts, grads)


def _statistics_fake(acts: Tensor, grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    maps = _aggregate_fake(acts, grads)
    return maps, maps.new_empty(maps.shape[:1]), maps.new_empty(maps.shape[:1])


_statistics = operator(
    "aggregate_statistics(Tensor acts, Tensor grads) -> (Tensor, Tensor, Tensor)",
    _statistics_of_maps,
    _statistics_cuda,
    _statistics_fake,
)


def aggregate_statistics(acts: Tensor, grads: Tensor) -> Statistics:
    """Saliency maps as by `aggregate`, with what is needed to scale or to normalise them.

    Args:
        acts, grads: see `aggregate`; the same errors are raised.

    Returns:
        Maps (N, h, w); the largest pixel and the sum of each map, (N,), NaN where the map holds a NaN. All
        float32, or float64 for float64.

    >>> acts = torch.tensor([[[[2.0, 1.0]], [[3.0, 4.0]]]])
    >>> _, maxima, sums = aggregate_statistics(acts, torch.ones_like(acts))
    >>> maxima, sums
    (tensor([5.]), tensor([10.]))
    """
    check_pair(acts, grads)
    return Statistics(*_statistics(acts, grads))


def check_pair(acts: Tensor, grads: Tensor) -> None:
    """Raise unless acts and grads are floating tensors of one shape (N, C, h, w), dtype and device."""
    for name, value in (("acts", acts), ("grads", grads)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if acts.dtype not in DTYPES:
        raise TypeError(f"acts must be float32, float16, bfloat16 or float64, got {acts.dtype}")
    if acts.dim() != 4 or 0 in acts.shape[1:]:
        raise ValueError(f"acts must have shape (N, C, h, w) with C, h, w > 0, got {tuple(acts.shape)}")
    if grads.shape != acts.shape:
        raise ValueError(f"grads must have the shape of acts {tuple(acts.shape)}, got {tuple(grads.shape)}")
    if grads.dtype != acts.dtype:
        raise ValueError(f"grads must have the dtype of acts, {acts.dtype}, got {grads.dtype}")
    if grads.device != acts.device:
        raise ValueError(f"grads must be on the device of acts, {acts.device}, got {grads.device}")

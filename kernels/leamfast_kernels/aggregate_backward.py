"""The step of a backward pass over BatchNorm and PReLU to a tap, and the tap's map, from one reading of it.

    G = grads * scale * (1 where A * scale + shift > 0, else slope)
    M = ReLU( sum_k ReLU(G^k) * A^k ),   acts A and grads (N, C, h, w) -> G (N, C, h, w), M (N, h, w)

The tap's output A goes through a BatchNorm in evaluation mode, an affine map of each channel, and a PReLU
(slope 0 is a ReLU); `grads` arrive behind them. The backward pass needs G to go on, and the map needs it too:
G is made, used and written in one go. Arithmetic is float32 whatever the input (float64 for float64); G has
the dtype of the input, and the map is made of G before it is rounded to it.

Reference: Jiang et al., LayerCAM, IEEE TIP 30 (2021), eq. 6 and 7; He et al., Delving Deep into Rectifiers
(2015), eq. 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from leamfast_kernels.aggregate import accumulator, check_pair
from leamfast_kernels.operators import operator
from leamfast_kernels.tuning import AGGREGATE_BLOCK


class Backward(NamedTuple):
    """Maps (N, h, w), and the gradient at the tap, (N, C, h, w)."""

    maps: Tensor
    grads: Tensor


def aggregate_backward_reference(
    acts: Tensor, grads: Tensor, scale: Tensor, shift: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """G and M as written; same arguments as `aggregate_backward`."""
    dtype = accumulator(acts.dtype)
    a, g = acts.to(dtype), grads.to(dtype)
    by, offset, leak = (x.to(dtype)[:, None, None] for x in (scale, shift, slope))
    g = g * by * torch.where(a * by + offset > 0, 1.0, leak)
    return (g.clamp_min(0) * a).sum(dim=1).clamp_min(0).contiguous(), g.to(acts.dtype)


def _backward_in_blocks(
    acts: Tensor, grads: Tensor, scale: Tensor, shift: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    dtype = accumulator(acts.dtype)
    by, offset, leak = (x.to(dtype)[:, None, None] for x in (scale, shift, slope))
    below = by * leak
    maps = torch.empty((len(acts), *acts.shape[2:]), dtype=dtype, device=acts.device)
    out = torch.empty_like(acts)
    step = max(1, AGGREGATE_BLOCK // acts[0].numel()) if len(acts) else 1
    for start in range(0, len(acts), step):
        rows = slice(start, start + step)
        a = acts[rows].to(dtype)
        g = torch.where(torch.addcmul(offset, a, by) > 0, by, below).mul_(grads[rows])
        out[rows] = g
        torch.sum(g.clamp_min_(0).mul_(a), dim=1, out=maps[rows])
    return maps.clamp_min_(0), out


def _backward_cuda(
    acts: Tensor, grads: Tensor, scale: Tensor, shift: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    from leamfast_kernels.gpu.aggregate_backward import launch_aggregate_backward

    return launch_aggregate_backward(acts, grads, scale, shift, slope)


def _backward_fake(
    acts: Tensor, grads: Tensor, scale: Tensor, shift: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    images, _, height, width = acts.shape
    return acts.new_empty((images, height, width), dtype=accumulator(acts.dtype)), torch.empty_like(acts)


_backward = operator(
    "aggregate_backward(Tensor acts, Tensor grads, Tensor scale, Tensor shift, Tensor slope) "
    "-> (Tensor, Tensor)",
    _backward_in_blocks,
    _backward_cuda,
    _backward_fake,
)


def aggregate_backward(acts: Tensor, grads: Tensor, scale: Tensor, shift: Tensor, slope: Tensor) -> Backward:
    """Map of a tap and the gradient at it, from the gradient behind the BatchNorm and PReLU that follow it.

    Args:
        acts: activations A at the tap, shape (N, C, h, w), float32, float16, bfloat16 or float64, any layout.
        grads: gradient of the target behind the PReLU; same shape, dtype and device, any layout.
        scale: weight / sqrt(running_var + eps) of the BatchNorm, (C,); ones where there is none.
        shift: bias - running_mean * scale of the BatchNorm, (C,); zeros where there is none.
        slope: of the PReLU, (C,); zeros for a ReLU.

    Returns:
        Maps (N, h, w) as `aggregate` makes them of A and G; and G, (N, C, h, w), in the dtype of `acts`
        and, where that is dense, in its memory format. Neither carries a gradient.

    Raises:
        TypeError, ValueError: as `aggregate`; or scale, shift or slope is not (C,) on the device of `acts`.

    >>> acts = torch.tensor([[[[2.0, -1.0]]]])
    >>> one, zero = torch.ones(1), torch.zeros(1)
    >>> aggregate_backward(acts, torch.ones_like(acts), 3 * one, zero, 0.5 * one)
    Backward(maps=tensor([[[6., 0.]]]), grads=tensor([[[[3.0000, 1.5000]]]]))
    """
    check_pair(acts, grads)
    for name, value in (("scale", scale), ("shift", shift), ("slope", slope)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
        if tuple(value.shape) != (acts.shape[1],) or value.device != acts.device:
            raise ValueError(
                f"{name} must have shape ({acts.shape[1]},) on {acts.device}, "
                f"got {tuple(value.shape)} on {value.device}"
            )
    return Backward(*_backward(acts, grads, scale, shift, slope))

"""Cheap lower bounds of EMDs, where only a rank or a threshold is asked.

    W1(p, q) >= | (W1 of the sums over columns, W1 of the sums over rows) |,   | . | the ground norm

A plan between maps is one between their marginals, and the norm of a mean is at most the mean of norms
(Jensen). In one dimension W1 is the area between the two distribution functions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leamfast_kernels.emd.ground import check_ground
from leamfast_kernels.unit_roots import check_both

__all__ = ["emd_lower_bound"]


def emd_lower_bound(p: Tensor, q: Tensor, ground: str = "euclidean") -> Tensor:
    """A lower bound of the Earth Mover's Distance of pairs of maps, from their marginals alone.

    On LEAM maps of 28x28 it was 0.86 to 0.89 of the distance in the median, in a 450th of the time of `emd`
    on one thread; on their supports of 125 pixels at 112x112 it was 0.91 to 0.96, in a quarter of the time,
    as it goes through all pixels. A pair whose bound lies above a threshold needs no exact distance to be
    told apart.

    Args:
        p: maps, shape (N, h, w), float32, float16, bfloat16 or float64, any layout, values at least 0.
        q: maps, shape (N, h, w); dtype and device of `p`.
        ground: "euclidean" or "l1".

    Returns:
        Lower bounds, shape (N,), float64, in sides of the image (see `emd`). NaN where a map is zero or holds
        a NaN, an infinity or a negative value.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: shapes, dtypes or devices differ, or there is no such ground distance.

    >>> p = torch.zeros(1, 4, 4)
    >>> p[0, 0, 0] = 1
    >>> emd_lower_bound(p, p.mT.flip(1))
    tensor([0.7500], dtype=torch.float64)
    """
    check_both(p, q)
    if len(p) != len(q):
        raise ValueError(f"q must have as many maps as p, {len(p)}, got {len(q)}")
    check_ground(ground)
    first, second = _marginals(p.detach()), _marginals(q.detach())
    rows, columns = (
        (x - y).cumsum(dim=1).abs().sum(dim=1) / x.shape[1] for x, y in zip(first, second, strict=True)
    )
    return rows + columns if ground == "l1" else torch.hypot(rows, columns)


def _marginals(maps: Tensor) -> tuple[Tensor, Tensor]:
    values = maps.double()
    bad = ~(torch.isfinite(values) & (values >= 0)).flatten(1).all(dim=1)
    values = values / values.amax(dim=(1, 2), keepdim=True)
    shares = values / values.sum(dim=(1, 2), keepdim=True)
    shares = shares.masked_fill(bad[:, None, None], torch.nan)
    return shares.sum(dim=2), shares.sum(dim=1)

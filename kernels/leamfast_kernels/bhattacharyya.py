"""Bhattacharyya coefficient of pairs of saliency maps.

    BC(p, q) = sum_x sqrt(p(x) q(x)) / sqrt( sum_x p(x) * sum_x q(x) ),   p (N, h, w), q (M, h, w) -> (K,)

With a percentage, p and q are first cut to their supports, on which they keep their values. On a GPU both
sums, the roots and their products are taken in one pass over the two maps.

Sums are float64 and products float32 (float64 for float64 maps).

Reference: Bhattacharyya, On a measure of divergence between two multinomial populations, Sankhya 7 (1946);
arXiv 2509.17457, which compares maps by it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leamfast_kernels.aggregate import accumulator
from leamfast_kernels.operators import operator
from leamfast_kernels.tuning import ROOTS_BLOCK
from leamfast_kernels.unit_roots import (
    check_both,
    check_percent,
    lowest_keys,
    rows_of,
    shares_reference,
    unit_roots,
)


def bhattacharyya_reference(
    p: Tensor, q: Tensor, pairs: Tensor | None = None, percent: float | None = None
) -> Tensor:
    """BC of maps as written, in float64; same arguments and result as `bhattacharyya`."""
    shares = shares_reference(p, percent), shares_reference(q, percent)
    first, second = shares if pairs is None else (shares[0][pairs[:, 0]], shares[1][pairs[:, 1]])
    return (first * second).sqrt().sum(dim=(1, 2)).to(accumulator(p.dtype))


def _bhattacharyya_in_blocks(p: Tensor, q: Tensor, pairs: Tensor | None, percent: float | None) -> Tensor:
    _check_range(p, q, pairs)
    count = len(p) if pairs is None else len(pairs)
    found = torch.empty((count,), dtype=accumulator(p.dtype), device=p.device)
    of_p, of_q = lowest_keys(p, percent), lowest_keys(q, percent)
    step = max(1, ROOTS_BLOCK // (p.shape[1] * p.shape[2]))
    for start in range(0, count, step):
        rows = slice(start, start + step)
        first, second = (rows, rows) if pairs is None else pairs[rows].unbind(dim=1)
        roots = unit_roots(p[first], rows_of(of_p, first))
        roots = roots.mul_(unit_roots(q[second], rows_of(of_q, second)))
        found[rows] = roots.sum(dim=1, dtype=torch.float64)
    return found.clamp_max_(1)


def _bhattacharyya_cuda(p: Tensor, q: Tensor, pairs: Tensor | None, percent: float | None) -> Tensor:
    from leamfast_kernels.gpu.bhattacharyya import launch_pairs

    return launch_pairs(p, q, pairs, lowest_keys(p, percent), lowest_keys(q, percent))


def _bhattacharyya_fake(p: Tensor, q: Tensor, pairs: Tensor | None, percent: float | None) -> Tensor:
    return p.new_empty((p.shape[0] if pairs is None else pairs.shape[0],), dtype=accumulator(p.dtype))


def _check_range(p: Tensor, q: Tensor, pairs: Tensor | None) -> None:
    # Here and not in the public function, where a look at the values would break a compiled graph.
    if pairs is None or not len(pairs):
        return
    for maps, name, column in ((p, "p", pairs[:, 0]), (q, "q", pairs[:, 1])):
        least, most = (int(number) for number in torch.aminmax(column))
        if least < 0 or most >= len(maps):
            wrong = least if least < 0 else most
            raise ValueError(f"pairs must hold rows of {name} from 0 to {len(maps) - 1}, got {wrong}")


_bhattacharyya = operator(
    "bhattacharyya(Tensor p, Tensor q, Tensor? pairs, float? percent) -> Tensor",
    _bhattacharyya_in_blocks,
    _bhattacharyya_cuda,
    _bhattacharyya_fake,
)


def bhattacharyya(p: Tensor, q: Tensor, pairs: Tensor | None = None, percent: float | None = None) -> Tensor:
    """Bhattacharyya coefficient of pairs of maps: sum of sqrt(p q), each map divided by its sum.

    The scale of a map does not count. There is no gradient.

    Args:
        p: maps, shape (N, h, w), float32, float16, bfloat16 or float64, any layout, values at least 0.
        q: maps, shape (M, h, w); dtype and device of `p`. M must be N where there are no `pairs`.
        pairs: rows of p and of q, shape (K, 2), int64, on the device of `p`; None compares row by row. A row
            that there is not raises on a CPU; on a GPU, where a look at it would make the host wait, its
            BC is NaN.
        percent: compare supports, the round(percent / 100 * h * w) largest positive pixels of each map (ties
            to the lower index, compared in float32), on which the maps keep their values; None or 100
            compares whole maps.

    Returns:
        BC, shape (K,) or (N,), in [0, 1], float32, or float64 for float64. NaN where a map is zero, its
        support is empty, or it holds a NaN, an infinity or a negative value: such pairs are the caller's to
        count.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: shapes, dtypes or devices differ, or a row or the percentage is out of range.

    Reference: Bhattacharyya, Sankhya 7 (1946); arXiv 2509.17457.

    >>> p = torch.tensor([[[1.0, 3.0]], [[0.0, 2.0]]])
    >>> bhattacharyya(p, p.flip(2))
    tensor([0.8660, 0.0000])
    >>> bhattacharyya(p, p, pairs=torch.tensor([[0, 0], [1, 0]]), percent=50)
    tensor([1.0000, 1.0000])
    """
    check_both(p, q)
    if pairs is None and len(p) != len(q):
        raise ValueError(f"q must have as many maps as p, {len(p)}, where no pairs are given, got {len(q)}")
    if pairs is not None:
        _check_pairs(p, pairs)
    found: Tensor = _bhattacharyya(p, q, pairs, check_percent(percent))
    return found


def _check_pairs(p: Tensor, pairs: Tensor) -> None:
    if not isinstance(pairs, Tensor) or pairs.dtype != torch.int64:
        got = pairs.dtype if isinstance(pairs, Tensor) else type(pairs).__name__
        raise TypeError(f"pairs must be an int64 tensor, got {got}")
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs must have shape (K, 2), a row of p and one of q, got {tuple(pairs.shape)}")
    if pairs.device != p.device:
        raise ValueError(f"pairs must be on the device of p, {p.device}, got {pairs.device}")

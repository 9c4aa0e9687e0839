"""Earth Mover's Distance of saliency maps, with a certificate for every value.

    EMD(p, q) = min sum_xy f(x, y) |x - y|,   f >= 0 with marginals p / sum p and q / sum q

the 1-Wasserstein distance of maps p (N, h, w) and q (M, h, w). On a CPU every distance is solved exactly; on
a GPU they are first bracketed, and those whose bracket is wider than the tolerance are then solved.

Reference: Rubner, Tomasi, Guibas, The Earth Mover's Distance as a metric for image retrieval, IJCV 40 (2000).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from leamfast_kernels.emd.ground import Cells, check_ground
from leamfast_kernels.emd.pairs import exact
from leamfast_kernels.emd.reduction import shares
from leamfast_kernels.unit_roots import check_both

__all__ = ["METHODS", "EmdResult", "emd", "emd_matrix", "emd_pairs"]

METHODS = ("none", "exact", "bracket")
NARROW = 0.0005  # sides of the image; a bracket no wider than this needs no exact distance
BRACKETED = 1024  # pairs that a GPU brackets at a time


@dataclass(frozen=True)
class EmdResult:
    """Distances in sides of the image, with their certificates.

    Attributes:
        value: the distance, float64. Exact ones are the cost of the plan that was found, those of a bracket
            lie in its middle. NaN where a map has no shares: zero, or with a NaN, an infinity or a negative
            value.
        lower: no plan costs less: the objective of potentials that are feasible on every arc. float64.
        upper: some plan costs no more. float64; lower <= value <= upper.
        method: int8, an index of `METHODS`: 0 none (NaN), 1 exact (upper - lower at most 1e-9 of upper),
            2 bracket (upper - lower at most the tolerance times upper, or 0.0005).
    """

    value: Tensor
    lower: Tensor
    upper: Tensor
    method: Tensor

    @property
    def methods(self) -> list[str]:
        """The names behind `method`, pair by pair (row by row for a matrix)."""
        return [METHODS[code] for code in self.method.flatten().tolist()]


def emd(
    p: Tensor, q: Tensor, ground: str = "euclidean", method: str = "auto", tolerance: float = 0.01
) -> EmdResult:
    """Earth Mover's Distance of p[n] and q[n].

    Maps need not sum to one: each is divided by its sum, in float64, so their scale does not count. The unit
    is the side of the image, which is taken to be square: on a grid of h x w cells, centres of neighbours are
    1/h or 1/w apart. A grid that is not square has cells that are not, and both axes count in sides.

    Args:
        p: maps, shape (N, h, w), float32, float16, bfloat16 or float64, any layout, values at least 0.
        q: maps, shape (N, h, w); dtype and device of `p`.
        ground: distance of pixels, "euclidean" or "l1". Mass that the maps share is not moved, which is exact
            for these and wrong for squared distances: there are none.
        method: "exact", or "auto", which is exact on a CPU and on a GPU solves only those pairs whose bracket
            by Sinkhorn iterations is wider than the tolerance.
        tolerance: width of brackets as a fraction of the distance; exact ones do not depend on it.

    Returns:
        `EmdResult` with tensors of shape (N,) on the device of p. Identical maps have distance 0 exactly.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: shapes, dtypes or devices differ, or an argument has no such value.
        RuntimeError: a distance could not be certified.

    Reference: Rubner, Tomasi, Guibas, IJCV 40 (2000); bounds as in Peyre, Cuturi, Computational Optimal
    Transport (2019), section 3.

    >>> p = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    >>> q = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
    >>> emd(p, q).value
    tensor([0.2500], dtype=torch.float64)
    """
    _check(p, q, ground, method, tolerance)
    if len(p) != len(q):
        raise ValueError(f"q must have as many maps as p, {len(p)}, got {len(q)}")
    rows = np.arange(len(p))
    return _solve(p, q, np.stack([rows, rows], axis=1), ground, method, tolerance)


def emd_pairs(
    p: Tensor,
    q: Tensor,
    pairs: Tensor,
    ground: str = "euclidean",
    method: str = "auto",
    tolerance: float = 0.01,
) -> EmdResult:
    """Earth Mover's Distance of p[i] and q[j] for each row (i, j) of `pairs`.

    Args:
        p: maps, shape (N, h, w), as for `emd`.
        q: maps, shape (M, h, w); dtype and device of `p`.
        pairs: rows of p and of q, shape (K, 2), int64, on any device.
        ground: as for `emd`.
        method: as for `emd`.
        tolerance: as for `emd`.

    Returns:
        `EmdResult` with tensors of shape (K,).

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: shapes, dtypes or devices differ, an argument has no such value, or a pair names no map.
        RuntimeError: a distance could not be certified.

    >>> maps = torch.eye(3)[:, None]
    >>> 3 * emd_pairs(maps, maps, torch.tensor([[0, 2], [1, 1]])).value
    tensor([2., 0.], dtype=torch.float64)
    """
    _check(p, q, ground, method, tolerance)
    if not isinstance(pairs, Tensor) or pairs.dtype != torch.int64:
        got = pairs.dtype if isinstance(pairs, Tensor) else type(pairs).__name__
        raise TypeError(f"pairs must be an int64 tensor, got {got}")
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs must have shape (K, 2), a row of p and one of q, got {tuple(pairs.shape)}")
    rows = pairs.cpu().numpy()
    for column, (name, maps) in enumerate((("p", p), ("q", q))):
        wrong = rows[(rows[:, column] < 0) | (rows[:, column] >= len(maps)), column]
        if len(wrong):
            raise ValueError(f"pairs must hold rows of {name} from 0 to {len(maps) - 1}, got {wrong[0]}")
    return _solve(p, q, rows, ground, method, tolerance)


def emd_matrix(
    p: Tensor,
    q: Tensor | None = None,
    ground: str = "euclidean",
    method: str = "auto",
    tolerance: float = 0.01,
) -> EmdResult:
    """Earth Mover's Distance of every map of p and every map of q.

    Args:
        p: maps, shape (N, h, w), as for `emd`.
        q: maps, shape (M, h, w); None stands for p, where each pair is solved once.
        ground: as for `emd`.
        method: as for `emd`.
        tolerance: as for `emd`.

    Returns:
        `EmdResult` with tensors of shape (N, M), symmetric to the bit where q is None or p itself.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: shapes, dtypes or devices differ, or an argument has no such value.
        RuntimeError: a distance could not be certified.

    >>> 3 * emd_matrix(torch.eye(3)[:, None]).value
    tensor([[0., 1., 2.],
            [1., 0., 1.],
            [2., 1., 0.]], dtype=torch.float64)
    """
    alone = q is None or q is p
    other = p if q is None else q
    _check(p, other, ground, method, tolerance)
    if alone:
        i, j = np.triu_indices(len(p))
    else:
        i, j = (index.reshape(-1) for index in np.indices((len(p), len(other))))
    found = _solve(p, other, np.stack([i, j], axis=1), ground, method, tolerance)
    if not alone:
        return EmdResult(*(getattr(found, name.name).view(len(p), len(other)) for name in fields(found)))
    square = []
    for name in fields(found):
        values = getattr(found, name.name)
        matrix = values.new_empty((len(p), len(p)))
        matrix[i, j] = values
        matrix[j, i] = values
        square.append(matrix)
    return EmdResult(*square)


def _check(p: Tensor, q: Tensor, ground: str, method: str, tolerance: float) -> None:
    check_both(p, q)
    check_ground(ground)
    if method not in ("auto", "exact"):
        raise ValueError(f"method must be 'auto' or 'exact', got {method!r}")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float):
        raise TypeError(f"tolerance must be a number above 0, got {tolerance!r}")
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise ValueError(f"tolerance must be a finite number above 0, got {tolerance!r}")


def _solve(p: Tensor, q: Tensor, pairs: Cells, ground: str, method: str, tolerance: float) -> EmdResult:
    """Distances of the pairs (K, 2), rows of p and of q that there are."""
    size = p.shape[1], p.shape[2]
    of_p = shares(p)
    of_q = of_p if q is p else shares(q)
    found = np.full((3, len(pairs)), np.nan)
    methods = np.zeros(len(pairs), dtype=np.int8)
    todo = np.flatnonzero(of_p.usable[pairs[:, 0]] & of_q.usable[pairs[:, 1]])
    if method == "auto" and _on_gpu(p):
        brackets = _brackets(p, q, torch.from_numpy(pairs[todo]), ground, tolerance)
        width, narrow = brackets[2] - brackets[1], np.maximum(tolerance * brackets[2], NARROW)
        done = width <= narrow  # a NaN is not
        found[:, todo[done]], methods[todo[done]] = brackets[:, done], METHODS.index("bracket")
        todo = todo[~done]
    found[:, todo] = exact(of_p, of_q, pairs[todo], size, ground)
    methods[todo] = METHODS.index("exact")
    value, lower, upper = torch.from_numpy(found).to(p.device).unbind()
    return EmdResult(value, lower, upper, torch.from_numpy(methods).to(p.device))


def _on_gpu(maps: Tensor) -> bool:
    return maps.device.type == "cuda"


def _brackets(p: Tensor, q: Tensor, pairs: Tensor, ground: str, tolerance: float) -> np.ndarray:
    """Middle, lower and upper ends of brackets, (3, K), of pairs of maps that have shares."""
    from leamfast_kernels.emd.sinkhorn import sinkhorn_bracket

    found = torch.empty((3, len(pairs)), dtype=torch.float64)
    for start in range(0, len(pairs), BRACKETED):
        rows = slice(start, start + BRACKETED)
        i, j = pairs[rows].to(p.device).unbind(dim=1)
        bracket = sinkhorn_bracket(_shares(p[i]), _shares(q[j]), ground, tolerance, NARROW)
        found[0, rows] = ((bracket.lower + bracket.upper) / 2).cpu()
        found[1, rows], found[2, rows] = bracket.lower.cpu(), bracket.upper.cpu()
    return found.numpy()


def _shares(maps: Tensor) -> Tensor:
    values = maps.detach().double()
    values = values / values.amax(dim=(1, 2), keepdim=True)
    return values / values.sum(dim=(1, 2), keepdim=True)

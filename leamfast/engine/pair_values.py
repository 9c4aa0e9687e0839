"""BC and EMD of pairs of maps at every threshold, on the device where the maps are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from leamfast.store.arrays import THRESHOLDS
from leamfast_kernels import METHODS, bhattacharyya, bhattacharyya_matrix, emd_pairs

__all__ = ["PairValues", "pair_values", "solved_at", "stored_values"]

THINLY = 8
"""Pairs over all that the maps would make, inverted: below it BC is computed pair by pair."""


@dataclass(frozen=True, eq=False)
class PairValues:
    """Values of pairs at each of `THRESHOLDS`, (n, T) each.

    Attributes:
        bc: float32; NaN where a map is missing or empty.
        emd, lower, upper: float64, in sides of the image; NaN where not solved or without a map.
        how: uint8, index of `leamfast_kernels.METHODS`.
    """

    bc: np.ndarray
    emd: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    how: np.ndarray


def solved_at(turn: np.ndarray, pairs: int | None, percents: Sequence[int]) -> np.ndarray:
    """Which pairs have their distance solved, (n, T).

    Args:
        turn: place of each pair in the order in which distances are solved.
        pairs: how many at most; None for all.
        percents: thresholds at which they are.
    """
    chosen = np.ones(len(turn), bool) if pairs is None else turn < pairs
    return chosen[:, None] & np.isin(THRESHOLDS, percents)


def pair_values(
    p: Iterable[Tensor], q: Iterable[Tensor] | None, pairs: np.ndarray, solved: np.ndarray, tolerance: float
) -> PairValues:
    """Compare maps p[i] with q[j].

    Args:
        p: the maps at each threshold, (N, H, W) each; see `pair_views.views`.
        q: those that they are compared with, (M, H, W) each; None for the same.
        pairs: i and j, (n, 2) int64.
        solved: which distances are solved, (n, T).
        tolerance: of brackets, as for `leamfast_kernels.emd`.
    """
    found = np.full((4, *solved.shape), np.nan)
    how = np.zeros(solved.shape, np.uint8)
    chosen = torch.from_numpy(pairs)
    both = ((maps, maps) for maps in p) if q is None else zip(p, q, strict=True)
    for t, (mine, theirs) in enumerate(both):
        found[0, :, t] = _coefficients(mine, theirs, chosen)
        if not (these := solved[:, t]).any():
            continue
        first, i = np.unique(pairs[these, 0], return_inverse=True)
        second, j = np.unique(pairs[these, 1], return_inverse=True)
        numbered = torch.from_numpy(np.stack([i.reshape(-1), j.reshape(-1)], axis=1))
        result = emd_pairs(
            mine[torch.from_numpy(first).to(mine.device)],
            theirs[torch.from_numpy(second).to(mine.device)],
            numbered,
            tolerance=tolerance,
        )
        for n, values in enumerate((result.value, result.lower, result.upper), start=1):
            found[n, these, t] = values.cpu().numpy()
        how[these, t] = result.method.cpu().numpy()
    return PairValues(found[0].astype(np.float32), found[1], found[2], found[3], how)


def _coefficients(p: Tensor, q: Tensor, pairs: Tensor) -> np.ndarray:
    here = pairs.to(p.device)
    if THINLY * len(pairs) < len(p) * len(q):
        return bhattacharyya(p, q, here).cpu().numpy()
    return bhattacharyya_matrix(p, None if q is p else q)[here[:, 0], here[:, 1]].cpu().numpy()


def stored_values(values: np.ndarray, how: np.ndarray) -> np.ndarray:
    """Values as they are stored, float32.

    Args:
        values: bc, emd, lower and upper, (4, ...) float64.
        how: as `PairValues.how`, (...).

    Returns:
        The same; bounds of brackets rounded outwards, those of exact distances equal to them.
    """
    stored = values.astype(np.float32)
    stored[2:] = np.where(how == METHODS.index("exact"), stored[1], stored[2:])
    low, high = stored[2], stored[3]
    outside = how == METHODS.index("bracket")
    stored[2] = np.where(outside & (low > values[2]), np.nextafter(low, np.float32(-np.inf)), low)
    stored[3] = np.where(outside & (high < values[3]), np.nextafter(high, np.float32(np.inf)), high)
    return stored

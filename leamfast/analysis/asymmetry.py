"""Left against right: whether maps find one ear, brow or eye of a person more than the other.

    index = (right - left) / (right + left)

of the mean shares, and `area_index` of the mean areas, since a head that is turned shows more of one side.
Right and left are the person's own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.shares import ShareSums

__all__ = ["PAIRS", "AsymmetryRow", "asymmetry_of_map"]

PAIRS = {"ear": ("rr", "lr"), "brow": ("rb", "lb"), "eye": ("re", "le")}
"""Regions that come twice: the person's right one and left one."""


@dataclass(frozen=True)
class AsymmetryRow:
    """One map, threshold and pair of regions.

    `right` and `left` are mean shares, `index` lies between -1 (all left) and 1 (all right), `low` and `high`
    are its 95% interval by a bootstrap over identities, `area_index` is what the areas alone would give, `n`
    counts the images.
    """

    model: str
    map: str
    threshold: int
    pair: str
    right: float
    left: float
    index: float
    area_index: float
    low: float
    high: float
    n: int


def asymmetry_of_map(sums: ShareSums, resampling: Resampling) -> Iterator[AsymmetryRow]:
    """Rows of one map, for the pairs of which the parser can tell both."""
    pairs = {
        pair: (sums.regions.index(right), sums.regions.index(left))
        for pair, (right, left) in PAIRS.items()
        if right in sums.regions and left in sums.regions
    }
    right, left = ([sides[i] for sides in pairs.values()] for i in (0, 1))
    share, index, area_index = (
        sums.mean_share,
        _index(sums.share, right, left),
        _index(sums.area, right, left),
    )
    low, high = resampling.ratio_interval(
        sums.share[:, :, right] - sums.share[:, :, left], sums.share[:, :, right] + sums.share[:, :, left]
    )
    for i, threshold in enumerate(sums.thresholds):
        for j, pair in enumerate(pairs):
            yield AsymmetryRow(
                sums.model, sums.map, threshold, pair,
                share[i, right[j]], share[i, left[j]],
                index[i, j], area_index[i, j], low[i, j], high[i, j], int(sums.images[i]),
            )  # fmt: skip


def _index(values: np.ndarray, right: list[int], left: list[int]) -> np.ndarray:
    """(right - left) / (right + left) of sums (person, T, R), (T, pairs); NaN where neither is found."""
    total = values.sum(axis=0)
    both = total[:, right] + total[:, left]
    index = np.full(both.shape, np.nan)
    return np.divide(total[:, right] - total[:, left], both, out=index, where=both > 0)

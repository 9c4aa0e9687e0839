"""What sums by identity say: means over pairs, intervals that resample identities, paired tests."""

from dataclasses import dataclass

import numpy as np

from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.occlusion_sums import PairedSums
from leamfast.analysis.shares import ratio
from leamfast.analysis.sign_flips import sign_flip_p

__all__ = ["PairedStatistics", "intervals", "paired_statistics"]

COLUMNS = 1024
"""Columns whose draws are there at the same time: 16 MB each array."""


@dataclass(frozen=True, eq=False)
class PairedStatistics:
    """Of each column, all of one shape; NaN where there are too few pairs or identities.

    Attributes:
        mean, low, high: over pairs, with the 95% interval by a bootstrap over identities.
        n, people: pairs with a value, and identities among them.
        minus, minus_low, minus_high: own - control over the pairs that have both, with its 95% interval; NaN
            for the own map.
        p: of this difference, by flipping the signs of whole identities; NaN for the own map.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    people: np.ndarray
    minus: np.ndarray
    minus_low: np.ndarray
    minus_high: np.ndarray
    p: np.ndarray


def paired_statistics(sums: PairedSums, resampling: Resampling) -> PairedStatistics:
    """Statistics of sums.

    Args:
        sums: of the identities of `resampling`, in its order.
        resampling: of the rows' identities.
    """
    low, high = intervals(resampling, sums.total, sums.count)
    minus = ratio(sums.difference.sum(axis=0), sums.both.sum(axis=0))
    minus_low, minus_high = intervals(resampling, sums.difference, sums.both)
    people = len(sums.both)
    p = sign_flip_p(sums.difference.reshape(people, -1), sums.both.reshape(people, -1) > 0)
    p = p.reshape(minus.shape)
    for values in (minus, minus_low, minus_high, p):
        np.moveaxis(values, sums.axis, 0)[0] = np.nan
    return PairedStatistics(
        mean=ratio(sums.total.sum(axis=0), sums.count.sum(axis=0)),
        low=low,
        high=high,
        n=sums.count.sum(axis=0).round().astype(np.int64),
        people=(sums.count > 0).sum(axis=0),
        minus=minus,
        minus_low=minus_low,
        minus_high=minus_high,
        p=p,
    )


def intervals(resampling: Resampling, top: np.ndarray, bottom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `Resampling.ratio_interval`, of any number of columns, a bounded number at a time."""
    shape = top.shape[1:]
    top, bottom = top.reshape(len(top), -1), bottom.reshape(len(bottom), -1)
    low, high = np.full(top.shape[1], np.nan), np.full(top.shape[1], np.nan)
    for start in range(0, top.shape[1], COLUMNS):
        part = slice(start, start + COLUMNS)
        low[part], high[part] = resampling.ratio_interval(top[:, part], bottom[:, part])
    return low.reshape(shape), high.reshape(shape)

"""What pairs of maps say: means with intervals, and pairs of one person against those of two.

Pairs that share an identity are not independent of each other, pairs that share an image still less: a
formula for independent pairs, or a permutation of pairs, finds a difference in every data set that is large
enough. So intervals resample identities (`pair_draws`), and the permutation test (`permutation`) deals the
identities anew to the images.
"""

from dataclasses import dataclass

import numpy as np

from leamfast.analysis.bootstrap import Resampling, quantiles
from leamfast.analysis.pair_draws import PairDraws

__all__ = [
    "Contrast",
    "PairMeans",
    "PairValues",
    "auc",
    "cohens_d",
    "contrast",
    "mean_interval_of_pairs",
    "pair_means",
]


@dataclass(frozen=True, eq=False)
class PairValues:
    """Values of pairs, and whose they are.

    Attributes:
        values: one row a pair, (n, k); NaN is left out column by column.
        first, second: identity numbers of both sides, (n,).
    """

    values: np.ndarray
    first: np.ndarray
    second: np.ndarray


@dataclass(frozen=True, eq=False)
class PairMeans:
    """Of each column, (k,) each; NaN where there are too few pairs or identities.

    Attributes:
        mean, low, high: over pairs, with the 95% interval by a bootstrap over identities.
        sd: of the single pair, n - 1 in the denominator.
        cv: coefficient of variation, sd / mean.
        n, people: pairs with a value, and identities among them.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sd: np.ndarray
    cv: np.ndarray
    n: np.ndarray
    people: np.ndarray


@dataclass(frozen=True, eq=False)
class Contrast:
    """How much larger the values of the same are than those of different people, (k,) each.

    Attributes:
        difference, low, high: of the means, with its 95% interval.
        auc, auc_low, auc_high: chance that a pair of the same has the larger value, with its 95% interval.
        d: Cohen's, with the pooled standard deviation.
    """

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    auc: np.ndarray
    auc_low: np.ndarray
    auc_high: np.ndarray
    d: np.ndarray


def mean_interval_of_pairs(
    values: np.ndarray, first: np.ndarray, second: np.ndarray, seed: int = 0
) -> PairMeans:
    """Means over pairs, with intervals by a bootstrap over the identities that occur in them.

    Args:
        values: one row a pair, (n, k), n at least 1; NaN is left out column by column.
        first, second: identity numbers of both sides, (n,); where they differ, both are drawn.
        seed: of the resampling.
    """
    draws = PairDraws(Resampling(np.concatenate([first, second]), seed))
    return pair_means(draws, PairValues(values, first, second))


def pair_means(draws: PairDraws, pairs: PairValues) -> PairMeans:
    """As `mean_interval_of_pairs`, with draws that other statistics share."""
    moments = _Moments.of(pairs.values)
    people, usable = _people(draws, pairs)
    low, high = quantiles(draws.means(pairs.values, pairs.first, pairs.second), usable)
    with np.errstate(invalid="ignore", divide="ignore"):
        cv = np.where(moments.mean > 0, moments.sd / moments.mean, np.nan)
    return PairMeans(moments.mean, low, high, moments.sd, cv, moments.n, people)


def contrast(draws: PairDraws, same: PairValues, different: PairValues) -> Contrast:
    """Pairs of the same against pairs of different people, values that are larger where maps are more alike.

    The interval of the difference comes from means of the same draws. That of the AUC comes from placements:
    with F the distribution of the values of different people and G that of the same, a draw has

        AUC* = mean*(F(same)) + mean*(1 - G(different)) - AUC

    which is the bootstrap of the AUC to first order at the price of two means, cut to 0 to 1.

    Args:
        draws: of the identities of both.
        same, different: with the same columns.

    Reference: DeLong, DeLong and Clarke-Pearson, Biometrics 44(3), 1988.
    """
    k = same.values.shape[1]
    _, usable_same = _people(draws, same)
    _, usable_different = _people(draws, different)
    usable = usable_same & usable_different
    above, below = np.full(same.values.shape, np.nan), np.full(different.values.shape, np.nan)
    for c in range(k):
        above[:, c] = _placements(same.values[:, c], different.values[:, c])
        below[:, c] = 1 - _placements(different.values[:, c], same.values[:, c])
    area = _Moments.of(above).mean
    inner = draws.means(np.hstack([same.values, above]), same.first, same.second)
    outer = draws.means(np.hstack([different.values, below]), different.first, different.second)
    low, high = quantiles(inner[:, :k] - outer[:, :k], usable)
    auc_low, auc_high = quantiles((inner[:, k:] + outer[:, k:] - area).clip(0, 1), usable)
    mine, theirs = _Moments.of(same.values), _Moments.of(different.values)
    return Contrast(mine.mean - theirs.mean, low, high, area, auc_low, auc_high, _d(mine, theirs))


def auc(same: np.ndarray, different: np.ndarray) -> float:
    """Chance that a value of `same` is larger than one of `different`, ties counted half; NaN is left out.

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 3.0]))
    0.625
    """
    return float(_Moments.of(_placements(same, different)[:, None]).mean[0])


def cohens_d(same: np.ndarray, different: np.ndarray) -> float:
    """Difference of the means over the pooled standard deviation; NaN is left out.

    sqrt(((n - 1) s^2 + (m - 1) t^2) / (n + m - 2)): of many pairs of different people against few of the same
    it is in effect the deviation of the former.
    """
    return float(_d(_Moments.of(same[:, None]), _Moments.of(different[:, None]))[0])


@dataclass(frozen=True, eq=False)
class _Moments:
    mean: np.ndarray
    sd: np.ndarray
    n: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> "_Moments":
        found = np.isfinite(values)
        n = found.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(found, values, 0.0).sum(axis=0, dtype=np.float64) / n
            squares = np.where(found, values - mean, 0.0) ** 2
            sd = np.sqrt(np.where(n > 1, squares.sum(axis=0), np.nan) / (n - 1))
        return _Moments(mean, sd, n)


def _d(same: _Moments, different: _Moments) -> np.ndarray:
    # A single pair has no deviation of its own, and adds none.
    squares = [np.where(m.n > 1, (m.n - 1) * np.nan_to_num(m.sd) ** 2, 0.0) for m in (same, different)]
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = np.sqrt(sum(squares) / (same.n + different.n - 2))
        return np.where(pooled > 0, (same.mean - different.mean) / pooled, np.nan)


def _placements(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of the others that each value is larger than, ties counted half; NaN where either is missing."""
    others = np.sort(others[np.isfinite(others)])
    if not len(others):
        return np.full(len(values), np.nan)
    ranks = np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")
    return np.where(np.isfinite(values), ranks / (2 * len(others)), np.nan)


def _people(draws: PairDraws, pairs: PairValues) -> tuple[np.ndarray, np.ndarray]:
    """Identities with a value in each column, and whether they are enough for an interval, (k,) each."""
    a, b = draws.positions(pairs.first), draws.positions(pairs.second)
    # One person says nothing of others, and two make one pair of people, which says nothing of other pairs.
    least = 2 if (a == b).all() else 3
    people = np.zeros(pairs.values.shape[1], np.int64)
    for c in range(len(people)):
        found = np.isfinite(pairs.values[:, c])
        there = np.zeros(len(draws.people), bool)
        there[a[found]] = there[b[found]] = True
        people[c] = there.sum()
    return people, people >= least

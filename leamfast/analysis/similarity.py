"""How alike maps are, kind of pairs by kind of pairs: rows of `tables/similarity.csv`.

The kinds stand side by side and none stands for another. What is said of pairs of one image or one person
against those of two people (difference, AUC, d, p) stands with the former.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.pair_draws import PairDraws
from leamfast.analysis.permutation import permutation_p
from leamfast.analysis.statistics import (
    Contrast,
    PairMeans,
    PairValues,
    contrast,
    pair_means,
)
from leamfast.store.arrays import THRESHOLDS
from leamfast.store.pairs import EMD_KINDS, PRIORS, PairTable

__all__ = ["MEASURES", "SAME", "SimilarityRow", "similarity_rows"]

MEASURES = ("bc", "emd")
SAME = ("A", "B", "C")
"""Kinds whose two maps are of one person."""


@dataclass(frozen=True)
class SimilarityRow:
    """One map, kind of pairs, threshold, prior and measure; numbers that cannot be had are NaN.

    Attributes:
        mean, low, high: over `n` pairs of `people` identities, with the 95% interval by resampling those.
        sd, cv: of the single pair, and over the mean.
        missing: pairs of the kind without a value because a map is empty or missing; of EMD, `n` counts the
            pairs that were drawn for it.
        excluded: pairs of images that were left out beforehand: without a map, or near-duplicates.
        bracketed, mean_lower, mean_upper: EMDs known only between bounds, and the means of the bounds.
        difference, difference_low, difference_high: how much more alike than pairs of different people:
            mean - mean of D for BC, the other way round for EMD; of kinds A, B and C, as what follows.
        auc, auc_low, auc_high: chance that such a pair is more alike than one of different people.
        d: Cohen's, of the same sign as `difference`.
        p: of kind C, by dealing identities anew to images; NaN where too few pairs D were compared for it.
        other_model: of `cross`.
    """

    model: str
    map: str
    kind: str
    threshold: int
    prior: str
    measure: str
    mean: float
    low: float
    high: float
    n: int
    sd: float
    cv: float
    people: int
    missing: int
    excluded: int
    bracketed: int
    mean_lower: float
    mean_upper: float
    difference: float = np.nan
    difference_low: float = np.nan
    difference_high: float = np.nan
    auc: float = np.nan
    auc_low: float = np.nan
    auc_high: float = np.nan
    d: float = np.nan
    p: float = np.nan
    other_model: str = ""


def similarity_rows(
    tables: Sequence[PairTable], identities: np.ndarray, resampling: Resampling | None = None
) -> Iterator[SimilarityRow]:
    """Rows of all tables in their order; an empty table has none, and one without distances none of these.

    Args:
        tables: of any maps, at most one of each map, kind and other model.
        identities: identity number of each row of the index.
        resampling: of `identities`; made with seed 0 where it is None.

    Raises:
        ValueError: two tables of one map, kind and other model.
    """
    keys = [(table.model, table.tap, table.kind, table.other_model) for table in tables]
    if len(set(keys)) != len(keys):
        raise ValueError("tables must differ in model, tap, kind or other_model: join tiles first")
    if not len(identities):
        return
    draws = PairDraws(resampling or Resampling(identities))
    different = {(table.model, table.tap): table for table in tables if table.kind == "D"}
    for table in tables:
        for measure in MEASURES if len(table) else ():
            apart = different.get((table.model, table.tap))
            yield from _measure_rows(table, apart, measure, identities, draws)


def _measure_rows(
    table: PairTable, different: PairTable | None, measure: str, identities: np.ndarray, draws: PairDraws
) -> Iterator[SimilarityRow]:
    pairs = _values(table, measure, identities)
    if measure == "emd" and not np.isfinite(pairs.values).any():  # none was asked for
        return
    means = pair_means(draws, pairs)
    against: Contrast | None = None
    p = np.full(len(means.n), np.nan)
    if different is not None and len(different) and table.kind in SAME:
        sign = 1 if measure == "bc" else -1
        apart = _values(different, measure, identities)
        mine = PairValues(sign * pairs.values, pairs.first, pairs.second)
        theirs = PairValues(sign * apart.values, apart.first, apart.second)
        against = contrast(draws, mine, theirs)
        if table.kind == "C":
            p = permutation_p(
                np.concatenate([mine.values, theirs.values]),
                np.concatenate([table.i, different.i]),
                np.concatenate([table.j, different.j]),
                identities,
            )
    for c in range(len(means.n)):
        yield _row(table, measure, c, means, against, float(p[c]))


def _row(
    table: PairTable, measure: str, column: int, means: PairMeans, against: Contrast | None, p: float
) -> SimilarityRow:
    threshold, prior = divmod(column, len(PRIORS))
    bracketed, lower, upper = 0, np.nan, np.nan
    if measure == "emd":
        how = table.emd_kind[:, threshold, prior]
        bracketed = int((how == EMD_KINDS.index("bracket")).sum())
        if (how != EMD_KINDS.index("none")).any():
            there = how != EMD_KINDS.index("none")
            lower = table.emd_lower[there, threshold, prior].mean(dtype=np.float64)
            upper = table.emd_upper[there, threshold, prior].mean(dtype=np.float64)
    compared = {}
    if against is not None:
        compared = {
            "difference": float(against.difference[column]),
            "difference_low": float(against.low[column]),
            "difference_high": float(against.high[column]),
            "auc": float(against.auc[column]),
            "auc_low": float(against.auc_low[column]),
            "auc_high": float(against.auc_high[column]),
            "d": float(against.d[column]),
        }
    return SimilarityRow(
        model=table.model,
        map=table.tap,
        kind=table.kind,
        threshold=THRESHOLDS[threshold],
        prior=PRIORS[prior],
        measure=measure,
        mean=float(means.mean[column]),
        low=float(means.low[column]),
        high=float(means.high[column]),
        n=int(means.n[column]),
        sd=float(means.sd[column]),
        cv=float(means.cv[column]),
        people=int(means.people[column]),
        missing=int(np.isnan(table.bc[:, threshold, prior]).sum()),
        excluded=sum(table.excluded.values()),
        bracketed=bracketed,
        mean_lower=float(lower),
        mean_upper=float(upper),
        p=p,
        other_model=table.other_model,
        **compared,
    )


def _values(table: PairTable, measure: str, identities: np.ndarray) -> PairValues:
    """One column a threshold and prior, the prior fastest."""
    values = getattr(table, measure).reshape(len(table), -1).astype(np.float64)
    if table.kind == "identity":
        return PairValues(values, table.i, table.j)
    return PairValues(values, identities[table.i], identities[table.j])

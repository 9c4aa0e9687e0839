"""BC of maps of one person against those of two, the position prior removed: stands beside specificity."""

from dataclasses import dataclass

import numpy as np

from leamfast.analysis.pair_draws import PairDraws
from leamfast.analysis.statistics import PairValues, contrast
from leamfast.store.arrays import THRESHOLDS
from leamfast.store.pairs import PRIORS, PairTable
from leamfast.store.results import Results

__all__ = ["BcOfMap", "bc_of_map"]


@dataclass(frozen=True, eq=False)
class BcOfMap:
    """BC of one map with the position prior removed; NaN where there are no pairs.

    Attributes:
        same: mean over pairs of kind C, two images of one identity, (threshold,).
        other: mean over pairs of kind D, of two identities, (threshold,).
        difference, low, high: same - other, with its 95% interval by resampling identities, of pairs D both.
        person_same, person_other: the means over the pairs of each identity, (person, threshold).
    """

    same: np.ndarray
    other: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    person_same: np.ndarray
    person_other: np.ndarray

    @staticmethod
    def column(percent: float) -> int | None:
        """Where a percent stands along `threshold`; None where maps were not compared at it."""
        return THRESHOLDS.index(int(percent)) if percent in THRESHOLDS else None


def bc_of_map(results: Results, model: str, name: str, draws: PairDraws) -> BcOfMap | None:
    """BC of a tap or of `fused`; None where its maps were not compared.

    Args:
        results: the run.
        model: the model.
        name: a tap, or `fused`.
        draws: of the rows' identities.
    """
    tables = {table.kind: table for table in results.pairs(model, name)}
    if "C" not in tables and "D" not in tables:
        return None
    identities = results.identities
    same, other = (_values(tables.get(kind), identities) for kind in "CD")
    if len(same.values) and len(other.values):
        against = contrast(draws, same, other)
        limits = against.difference, against.low, against.high
    else:
        nothing = np.full(len(THRESHOLDS), np.nan)
        limits = nothing, nothing, nothing
    one, two = draws.positions(other.first), draws.positions(other.second)
    both_sides = np.concatenate([other.values, other.values])
    people = len(draws.people)
    return BcOfMap(
        _means(same.values, np.zeros(len(same.values), np.int64), 1)[0],
        _means(other.values, np.zeros(len(other.values), np.int64), 1)[0],
        *limits,
        person_same=_means(same.values, draws.positions(same.first), people),
        person_other=_means(both_sides, np.concatenate([one, two]), people),
    )


def _values(table: PairTable | None, identities: np.ndarray) -> PairValues:
    if table is None:
        none = np.zeros(0, np.int64)
        return PairValues(np.zeros((0, len(THRESHOLDS))), none, none)
    values = table.bc[:, :, PRIORS.index("removed")].astype(np.float64)
    return PairValues(values, identities[table.i], identities[table.j])


def _means(values: np.ndarray, cell: np.ndarray, cells: int) -> np.ndarray:
    """Mean of each column in each cell, (cells, k); NaN where there is none."""
    found = np.isfinite(values)
    means = np.full((cells, values.shape[1]), np.nan)
    for column in range(values.shape[1]):
        there = found[:, column]
        count = np.bincount(cell[there], minlength=cells)
        total = np.bincount(cell[there], values[there, column], minlength=cells)
        np.divide(total, count, out=means[:, column], where=count > 0)
    return means

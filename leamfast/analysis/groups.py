"""Drops by group of people, or of images: rows of `tables/groups.csv`.

Groups are what metadata columns say, each against everyone else. Intervals resample whole identities, of the
group and of the rest in the same draw. A group of few people is marked, not hidden: its interval is too
narrow (see `FEWEST_PEOPLE` in `specificity_verdicts`). A difference between groups says nothing of its cause:
photos of the groups may differ in pose, light or number.

Reference: arXiv 2509.17457, which finds 0.1248 for women against 0.1038 for men.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leamfast.analysis.bootstrap import Resampling, quantiles
from leamfast.analysis.occlusion_blocks import Block, add_by
from leamfast.analysis.relabelling import relabelling_p
from leamfast.analysis.shares import ratio
from leamfast.analysis.sign_flips import sign_flip_p
from leamfast.analysis.specificity_verdicts import FEWEST_PEOPLE
from leamfast.analysis.statistics import cohens_d
from leamfast.analysis.strata import Strata
from leamfast.store.occlusion import OcclusionAxes

__all__ = ["GroupRow", "GroupSums", "group_family", "group_rows_of"]

ONE_VALUE = "one value only"


@dataclass(frozen=True)
class GroupRow:
    """One group of a column, or of columns crossed, and one map.

    Attributes:
        columns, group: such as `sex x age` and `female x old`. Images of which a column says nothing are in
            no group, and not in the rest.
        drop, drop_low, drop_high: of the own map, mean over `n` (image, reference) pairs of `people`
            identities, with the 95% interval by resampling those.
        few: whether there are under `FEWEST_PEOPLE` identities.
        rest: drop over everyone outside the group; NaN, as what follows, where there is nobody.
        difference, difference_low, difference_high: group - rest.
        d: Cohen's, of the means of identities, with the pooled standard deviation.
        p: that the difference is 0, two-sided. Where every identity is in one group, by dealing the groups
            anew to whole identities. Where images of one identity are in several, by flipping the signs of
            the differences, group - rest, within the identities that have both: each counts the same.
        p_adjusted: Holm's, over all maps and groups of one source, evaluated model, threshold, fill and
            columns.
        specificity, specificity_low, specificity_high: own - other-identity in the group, over the pairs
            that have both; NaN without that control.
        note: what else is to be said.
    """

    source_model: str
    evaluated_model: str
    map: str
    threshold: float
    fill: str
    columns: str
    group: str
    drop: float
    drop_low: float
    drop_high: float
    n: int
    people: int
    few: bool
    rest: float
    difference: float
    difference_low: float
    difference_high: float
    d: float
    p: float
    p_adjusted: float
    specificity: float
    specificity_low: float
    specificity_high: float
    note: str


def group_family(row: GroupRow) -> tuple[str, str, float, str, str]:
    """What rows whose p-values are adjusted together have in common."""
    return row.source_model, row.evaluated_model, row.threshold, row.fill, row.columns


class GroupSums:
    """Drops summed up by identity and group; a `Reduction`.

    Attributes:
        axes: of these maps.
        strata: the groups.
        person, group: of each cell, an identity in a group, (cell,).
        total, count: of the own drops, (cell, map, percent, fill) float64.
        difference, both: of own - other-identity over the pairs that have both, of the same shape.

    Args:
        axes: of these maps.
        strata: the groups.
        person: position of each row's identity among the people, (row,).
    """

    def __init__(self, axes: OcclusionAxes, strata: Strata, person: np.ndarray) -> None:
        self.axes, self.strata = axes, strata
        groups = max(1, len(strata.groups))
        there = strata.code >= 0
        keys, cell = np.unique(person[there] * groups + strata.code[there], return_inverse=True)
        self.person, self.group = np.divmod(keys, groups)
        self._cell = np.full(len(person), -1, np.int64)
        self._cell[there] = cell
        shape = len(keys), len(axes.maps), len(axes.percents), len(axes.fills)
        self.total, self.count, self.difference, self.both = (np.zeros(shape) for _ in range(4))

    def add(self, block: Block) -> None:
        cell = self._cell[block.rows]
        there = cell >= 0
        cell, weight, drop = cell[there], block.weight[there, None, None, None], block.drop[there]
        added = [(self.total, self.count, drop[:, :, :, 0])]
        if "other-identity" in self.axes.controls:
            other = self.axes.controls.index("other-identity")
            added.append((self.difference, self.both, drop[:, :, :, 0] - drop[:, :, :, other]))
        for total, count, values in added:
            found = np.isfinite(values)
            add_by(total, cell, np.where(found, values, 0.0) * weight)
            add_by(count, cell, found * weight)


def group_rows_of(evaluated: str, source: str, sums: GroupSums, resampling: Resampling) -> Iterator[GroupRow]:
    """Rows of some maps, not adjusted yet.

    Args:
        evaluated, source: the models.
        sums: of the maps.
        resampling: of the rows' identities.
    """
    axes, groups, people = sums.axes, sums.strata.groups, len(resampling.people)
    alone = len(groups) == 1
    shape = sums.total.shape[1:]
    every = _Part.of(sums, slice(None), people)
    p = _dealt(sums, people) if sums.strata.whole and not alone else None
    for g, group in enumerate(groups):
        mine = _Part.of(sums, sums.group == g, people)
        rest = _Part(every.total - mine.total, every.count - mine.count)
        found = _compared(mine, rest, resampling)
        specific = _Part.of(sums, sums.group == g, people, specificity=True)
        found |= {
            "specificity": specific.mean,
            **dict(
                zip(("specificity_low", "specificity_high"), _interval(specific, resampling), strict=True)
            ),
        }
        if alone:
            found["p"] = np.full(found["drop"].shape, np.nan)
        else:
            found["p"] = _within(mine, rest) if p is None else p[g]
        for at in np.ndindex(*shape):
            m, t, f = at
            column = int(np.ravel_multi_index(at, shape))
            count = int(found["people"][column])
            numbers = {
                name: float(values[column]) for name, values in found.items() if name not in ("n", "people")
            }
            yield GroupRow(
                source_model=source,
                evaluated_model=evaluated,
                map=axes.maps[m],
                threshold=float(axes.percents[t]),
                fill=axes.fills[f],
                columns=sums.strata.columns,
                group=group,
                n=round(float(found["n"][column])),
                people=count,
                few=count < FEWEST_PEOPLE,
                p_adjusted=np.nan,
                note=ONE_VALUE if alone else "",
                **numbers,
            )


@dataclass(frozen=True, eq=False)
class _Part:
    """Some of the images: sums and counts of each identity, (person, k)."""

    total: np.ndarray
    count: np.ndarray

    @staticmethod
    def of(sums: GroupSums, cells: np.ndarray | slice, people: int, specificity: bool = False) -> "_Part":
        top, bottom = (sums.difference, sums.both) if specificity else (sums.total, sums.count)
        found = []
        for values in (top, bottom):
            chosen = values[cells].reshape(len(values[cells]), int(np.prod(values.shape[1:])))
            scattered = np.zeros((people, chosen.shape[1]))
            add_by(scattered, sums.person[cells], chosen)
            found.append(scattered)
        return _Part(*found)

    @property
    def mean(self) -> np.ndarray:
        return ratio(self.total.sum(axis=0), self.count.sum(axis=0))

    @property
    def of_people(self) -> np.ndarray:
        return ratio(self.total, self.count)

    @property
    def people(self) -> np.ndarray:
        return (self.count > 0).sum(axis=0)

    def drawn(self, resampling: Resampling) -> np.ndarray:
        """Mean in each draw, (DRAWS, k)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return resampling.draw(self.total) / resampling.draw(self.count)


def _interval(part: _Part, resampling: Resampling) -> tuple[np.ndarray, np.ndarray]:
    return quantiles(part.drawn(resampling), part.people > 1)


def _compared(mine: _Part, rest: _Part, resampling: Resampling) -> dict[str, np.ndarray]:
    """What is said of a group and the rest, each (k,)."""
    inside, outside = mine.drawn(resampling), rest.drawn(resampling)
    low, high = quantiles(inside, mine.people > 1)
    difference_low, difference_high = quantiles(inside - outside, (mine.people > 1) & (rest.people > 1))
    one, other = mine.of_people, rest.of_people
    return {
        "drop": mine.mean,
        "drop_low": low,
        "drop_high": high,
        "n": mine.count.sum(axis=0),
        "people": mine.people,
        "rest": rest.mean,
        "difference": mine.mean - rest.mean,
        "difference_low": difference_low,
        "difference_high": difference_high,
        "d": np.array([cohens_d(one[:, c], other[:, c]) for c in range(one.shape[1])]),
    }


def _dealt(sums: GroupSums, people: int) -> np.ndarray:
    """Chances of each group by dealing groups anew to identities, (group, k)."""
    every = _Part.of(sums, slice(None), people)
    label = np.full(people, -1, np.int64)
    label[sums.person] = sums.group
    there = (every.count > 0).any(axis=1)
    return relabelling_p(every.total[there], every.count[there], label[there], len(sums.strata.groups))


def _within(mine: _Part, rest: _Part) -> np.ndarray:
    """Chances by flipping the signs of differences within identities, (k,)."""
    apart = mine.of_people - rest.of_people
    return sign_flip_p(apart, np.isfinite(apart))

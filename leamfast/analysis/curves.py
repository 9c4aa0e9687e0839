"""Deletion and insertion curves: rows of `tables/curves.csv` and `tables/curve_areas.csv`.

The cosine to the references while the pixels are filled in the order of the map (deletion: the lower the
better the map), or come back in this order (insertion: the higher the better).

Reference: Petsiuk, Das and Saenko, RISE, BMVC 2018, with a cosine for the score.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.occlusion_blocks import Block, add_by
from leamfast.analysis.occlusion_statistics import intervals, paired_statistics
from leamfast.analysis.occlusion_sums import PairedSums
from leamfast.analysis.shares import ratio
from leamfast.store.occlusion import OcclusionAxes

__all__ = ["CURVES", "AreaRow", "CurveRow", "CurveSums", "area_family", "area_rows", "curve_rows"]

CURVES = ("deletion", "insertion")


@dataclass(frozen=True)
class CurveRow:
    """One point of a curve: `cosine` is the mean over `n` pairs, with its 95% interval over identities."""

    source_model: str
    evaluated_model: str
    map: str
    control: str
    fill: str
    curve: str
    percent: float
    cosine: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class AreaRow:
    """The area under a curve: the mean of the cosine over the percents, by the trapezoid rule.

    Attributes:
        area, low, high: mean over `n` (image, reference) pairs of `people` identities, with its 95% interval.
        own_minus, own_minus_low, own_minus_high: of the map itself - of the control: a better map is below 0
            in deletion and above 0 in insertion.
        p: that this difference is 0, two-sided, by flipping the signs of whole identities.
        p_adjusted: Holm's, over all maps and controls of one source, evaluated model, fill and curve.
    """

    source_model: str
    evaluated_model: str
    map: str
    control: str
    fill: str
    curve: str
    area: float
    low: float
    high: float
    n: int
    people: int
    own_minus: float
    own_minus_low: float
    own_minus_high: float
    p: float
    p_adjusted: float = np.nan


def area_family(row: AreaRow) -> tuple[str, str, str, str]:
    """What rows whose p-values are adjusted together have in common."""
    return row.source_model, row.evaluated_model, row.fill, row.curve


class CurveSums:
    """Curves summed up by identity; a `Reduction`.

    Attributes:
        axes: of these maps.
        cosine: sums over pairs, (person, curve, map, control, fill, step).
        area: sums over (curve, map, control, fill), of the rows whose curve is whole.

    Args:
        axes: of these maps, with steps.
        person: position of each row's identity among the people, (row,).
        people: how many there are.
    """

    def __init__(self, axes: OcclusionAxes, person: np.ndarray, people: int) -> None:
        self.axes = axes
        shape = len(CURVES), len(axes.maps), len(axes.controls), len(axes.fills)
        self.area = PairedSums(people, shape, 2)
        self.cosine = np.zeros((people, *shape, len(axes.steps)))
        self._person = person

    def add(self, block: Block) -> None:
        if block.arrays.deletion is None or block.arrays.insertion is None:
            raise ValueError("deletion and insertion must be there where steps are")
        curves = np.stack([block.arrays.deletion, block.arrays.insertion], axis=1).astype(np.float64)
        curves[block.weight == 0] = np.nan
        person, steps = self._person[block.rows], np.array(self.axes.steps)
        area = np.trapezoid(curves, steps, axis=-1) / (steps[-1] - steps[0])
        self.area.add(person, block.weight, area)
        whole = np.where(np.isfinite(area)[..., None], curves, 0.0)
        add_by(self.cosine, person, whole * block.weight.reshape(-1, 1, 1, 1, 1, 1))


def curve_rows(evaluated: str, source: str, sums: CurveSums, resampling: Resampling) -> Iterator[CurveRow]:
    """Points of the curves of some maps; a control without a curve has none.

    Args:
        evaluated, source: the models.
        sums: of the maps.
        resampling: of the rows' identities.
    """
    axes = sums.axes
    mean = np.empty(sums.cosine.shape[1:])
    low, high = np.empty_like(mean), np.empty_like(mean)
    for m in range(len(axes.maps)):
        top = sums.cosine[:, :, m]
        bottom = np.broadcast_to(sums.area.count[:, :, m, ..., None], top.shape)
        mean[:, m] = ratio(top.sum(axis=0), bottom.sum(axis=0))
        low[:, m], high[:, m] = intervals(resampling, top, bottom)
    for m, c, f, k in _order(sums):
        pairs = round(float(sums.area.count[:, k, m, c, f].sum()))
        for s, step in enumerate(axes.steps):
            at = k, m, c, f, s
            yield CurveRow(
                source, evaluated, axes.maps[m], axes.controls[c], axes.fills[f], CURVES[k], float(step),
                float(mean[at]), float(low[at]), float(high[at]), pairs,
            )  # fmt: skip


def area_rows(evaluated: str, source: str, sums: CurveSums, resampling: Resampling) -> Iterator[AreaRow]:
    """Areas under the curves of some maps, not adjusted yet; as `curve_rows`."""
    axes, found = sums.axes, paired_statistics(sums.area, resampling)
    for m, c, f, k in _order(sums):
        at = k, m, c, f
        yield AreaRow(
            source, evaluated, axes.maps[m], axes.controls[c], axes.fills[f], CURVES[k],
            float(found.mean[at]), float(found.low[at]), float(found.high[at]),
            int(found.n[at]), int(found.people[at]),
            float(found.minus[at]), float(found.minus_low[at]), float(found.minus_high[at]),
            float(found.p[at]),
        )  # fmt: skip


def _order(sums: CurveSums) -> Iterator[tuple[int, int, int, int]]:
    """Map, control, fill and curve of the curves that there are, the curve fastest."""
    axes, pairs = sums.axes, sums.area.count.sum(axis=0)
    for m, c, f, k in np.ndindex(len(axes.maps), len(axes.controls), len(axes.fills), len(CURVES)):
        if pairs[k, m, c, f]:
            yield m, c, f, k

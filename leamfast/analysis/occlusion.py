"""What it costs to fill the support of each map, beside its controls: rows of `tables/occlusion.csv`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leamfast.analysis.occlusion_statistics import PairedStatistics
from leamfast.analysis.occlusion_sums import DropSums
from leamfast.store.occlusion import CONTROLS

__all__ = ["TABLED", "OcclusionRow", "occlusion_family", "occlusion_rows"]

TABLED = tuple(control for control in CONTROLS if not control.startswith(("nearest-pose", "master")))
"""What stands in occlusion.csv; maps of the same person stand in within_person.csv."""


@dataclass(frozen=True)
class OcclusionRow:
    """The support of one map, or of a control in its place, at one percent with one fill.

    Attributes:
        source_model: whose map.
        evaluated_model: whose embeddings the drop is in.
        control: `own` or a control.
        threshold: percent of the crop.
        drop, drop_low, drop_high: mean over `n` (image, reference) pairs of `people` identities, with the 95%
            interval by resampling those.
        support: mean size of the own support, as a fraction of the pixels that the percent asks for.
        own_minus, own_minus_low, own_minus_high: drop of the map itself - drop of the control over the pairs
            that have both, with its 95% interval.
        p: that this difference is 0, two-sided, by flipping the signs of whole identities.
        p_adjusted: Holm's, over all maps and controls of one source, evaluated model, threshold and fill.
    """

    source_model: str
    evaluated_model: str
    map: str
    control: str
    threshold: float
    fill: str
    drop: float
    drop_low: float
    drop_high: float
    n: int
    people: int
    support: float
    own_minus: float
    own_minus_low: float
    own_minus_high: float
    p: float
    p_adjusted: float = np.nan


def occlusion_family(row: OcclusionRow) -> tuple[str, str, float, str]:
    """What rows whose p-values are adjusted together have in common."""
    return row.source_model, row.evaluated_model, row.threshold, row.fill


def occlusion_rows(
    evaluated: str, source: str, sums: DropSums, found: PairedStatistics, side: int
) -> Iterator[OcclusionRow]:
    """Rows of some maps, not adjusted yet.

    Args:
        evaluated, source: the models.
        sums: of the maps.
        found: statistics of `sums.drop`.
        side: of the evaluated model's crops, pixels.
    """
    axes, support = sums.axes, sums.support(side)
    for m, t, c, f in np.ndindex(*found.mean.shape):
        if axes.controls[c] in TABLED:
            at = m, t, c, f
            yield OcclusionRow(
                source, evaluated, axes.maps[m], axes.controls[c], float(axes.percents[t]), axes.fills[f],
                float(found.mean[at]), float(found.low[at]), float(found.high[at]),
                int(found.n[at]), int(found.people[at]), float(support[m, t]),
                float(found.minus[at]), float(found.minus_low[at]), float(found.minus_high[at]),
                float(found.p[at]),
            )  # fmt: skip

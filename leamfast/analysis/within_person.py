"""Maps of the same person against each other: rows of `tables/within_person.csv`.

Does the mean map of K other images of a person, on an image that it never saw, do as well as the image's own
map? Own - master near 0 says that what the map shows is the person's, far above 0 that it is the image's. The
number K grows only where people have more than K images: compare K over the same people with `own_minus`,
which takes only the pairs that have both maps.

Reference: the third open question of arXiv 2509.17457.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leamfast.analysis.occlusion_statistics import PairedStatistics
from leamfast.analysis.occlusion_sums import DropSums
from leamfast.store.occlusion import OWN

__all__ = ["AGAINST", "WithinRow", "within_family", "within_rows"]

AGAINST = (OWN, "other-identity", "nearest-pose", "master-1", "master-2", "master-4", "master-8", "master")
"""What stands in the table where it was taken; another person's map for scale."""

NO_OTHER_IMAGE = (OWN, "other-identity")
"""Of `AGAINST`, what is no map of another image of the person."""


@dataclass(frozen=True)
class WithinRow:
    """One map of a model on that model, or what stands in for it, at one percent with one fill.

    Attributes:
        against: whose support is filled: see `CONTROLS` in `leamfast.store.occlusion`.
        saw_image: whether this image may have been among the references of the maps of other images of the
            person, so that they are not wholly without it: always but where maps of single references were
            kept, of which those of this image are left out. False for `own` and `other-identity`.
        images: images that its map is the mean of; for `master` the mean over pairs of how many others there
            are, NaN without a pair.
        drop, low, high: mean over `n` pairs of `people` identities, with its 95% interval.
        own_minus, own_minus_low, own_minus_high: own - this over the pairs that have both.
        p: that this difference is 0, two-sided, by flipping the signs of whole identities.
        p_adjusted: Holm's, over all maps and all of `against` of one model, threshold and fill.
    """

    model: str
    map: str
    threshold: float
    fill: str
    against: str
    images: float
    drop: float
    low: float
    high: float
    own_minus: float
    own_minus_low: float
    own_minus_high: float
    p: float
    n: int
    people: int
    saw_image: bool
    p_adjusted: float = np.nan


def within_family(row: WithinRow) -> tuple[str, float, str]:
    """What rows whose p-values are adjusted together have in common."""
    return row.model, row.threshold, row.fill


def within_rows(model: str, sums: DropSums, found: PairedStatistics, references: str) -> Iterator[WithinRow]:
    """Rows of some maps, not adjusted yet; none where no other map of the same person was taken.

    Args:
        model: source and evaluated model.
        sums: of the maps.
        found: statistics of `sums.drop`.
        references: which ones the maps were made with: `mean`, `each` or `mean-map`.
    """
    axes = sums.axes
    against = [control for control in AGAINST if control in axes.controls]
    if not set(against) - set(NO_OTHER_IMAGE):
        return
    for m, t, f in np.ndindex(len(axes.maps), len(axes.percents), len(axes.fills)):
        for control in against:
            at = m, t, axes.controls.index(control), f
            yield WithinRow(
                model, axes.maps[m], float(axes.percents[t]), axes.fills[f], control,
                _images(control, sums.images[:, m], sums.drop.count[(slice(None), *at)]),
                float(found.mean[at]), float(found.low[at]), float(found.high[at]),
                float(found.minus[at]), float(found.minus_low[at]), float(found.minus_high[at]),
                float(found.p[at]), int(found.n[at]), int(found.people[at]),
                control not in NO_OTHER_IMAGE and references != "each",
            )  # fmt: skip


def _images(control: str, images: np.ndarray, pairs: np.ndarray) -> float:
    if control == "master":
        return float((pairs * (images - 1)).sum() / pairs.sum()) if pairs.sum() else np.nan
    return float(control.removeprefix("master-")) if control.startswith("master-") else 1.0

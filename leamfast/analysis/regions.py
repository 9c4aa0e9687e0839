"""Region shares of a run as a table: which parts of the face the supports of the maps lie in."""

from collections.abc import Iterator
from dataclasses import dataclass

from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.shares import ShareSums, ratio
from leamfast.analysis.variation import variation

__all__ = ["RegionRow", "regions_of_map"]


@dataclass(frozen=True)
class RegionRow:
    """One map, threshold and region.

    `share` is the mean over images of the fraction of the support (at threshold 100, of the map's mass) that
    lies in the region, `low` and `high` its 95% interval by a bootstrap over identities, `area` the mean
    fraction of the crop that the region covers, `over_representation` share / area: a large region is not an
    important one. `over_low` and `over_high` are its interval, shares and areas drawn together. `n` counts
    the images. `sd`, `cv_within` and `cv_between` say how much the share varies: see `Variation`.
    """

    model: str
    map: str
    threshold: int
    region: str
    share: float
    area: float
    over_representation: float
    low: float
    high: float
    n: int
    sd: float
    cv_within: float
    cv_between: float
    over_low: float
    over_high: float


def regions_of_map(sums: ShareSums, resampling: Resampling) -> Iterator[RegionRow]:
    """Rows of one map."""
    count = sums.count[:, :, None] + 0 * sums.share
    share, area, varied = sums.mean_share, sums.mean_area, variation(sums)
    over = ratio(sums.share.sum(axis=0), sums.area.sum(axis=0))
    low, high = resampling.ratio_interval(sums.share, count)
    over_low, over_high = resampling.ratio_interval(sums.share, sums.area)
    for i, threshold in enumerate(sums.thresholds):
        for j, region in enumerate(sums.regions):
            yield RegionRow(
                sums.model, sums.map, threshold, region,
                share[i, j], area[i, j], over[i, j], low[i, j], high[i, j], int(sums.images[i]),
                varied.sd[i, j], varied.cv_within[i, j], varied.cv_between[i, j],
                over_low[i, j], over_high[i, j],
            )  # fmt: skip

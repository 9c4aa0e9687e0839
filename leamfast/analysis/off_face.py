"""How much of the maps lies off the face.

On the face are skin, brows, eyes, nose, lips, the mouth and glasses. Everything else is off it: ears, hair,
hat, neck, clothes, background, and pixels of which the parser cannot tell the region. With polygons between
landmarks these are all pixels outside the hull of jaw and brows, so that the forehead counts as off the face.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.shares import ShareSums, ratio

__all__ = ["ON_FACE", "OffFaceRow", "off_face_of_map"]

ON_FACE = ("face", "rb", "lb", "re", "le", "nose", "imouth", "llip", "ulip", "eyeg")


@dataclass(frozen=True)
class OffFaceRow:
    """One map and threshold.

    `share` is the mean over images of the fraction of the support (at threshold 100, of the map's mass) off
    the face, `low` and `high` its 95% interval by a bootstrap over identities, `area` the mean fraction of
    the crop off the face, `over_representation` share / area (1 = the map knows nothing of the face) with the
    interval `over_low` and `over_high`, `n` the images.
    """

    model: str
    map: str
    threshold: int
    share: float
    area: float
    over_representation: float
    low: float
    high: float
    n: int
    over_low: float
    over_high: float


def off_face_of_map(sums: ShareSums, resampling: Resampling) -> Iterator[OffFaceRow]:
    """Rows of one map; none where the parser cannot tell the skin of the face."""
    if "face" not in sums.regions:
        return
    on = [j for j, region in enumerate(sums.regions) if region in ON_FACE]
    count = sums.count.astype(np.float64)
    # Shares are rounded to float32: their sum may exceed 1 by its last digits.
    share = np.maximum(count - sums.share[:, :, on].sum(axis=2), 0.0)
    area = np.maximum(count - sums.area[:, :, on].sum(axis=2), 0.0)
    mean, mean_area = (ratio(values.sum(axis=0), sums.images) for values in (share, area))
    over = ratio(share.sum(axis=0), area.sum(axis=0))
    low, high = resampling.ratio_interval(share, count)
    over_low, over_high = resampling.ratio_interval(share, area)
    for i, threshold in enumerate(sums.thresholds):
        yield OffFaceRow(
            sums.model, sums.map, threshold, mean[i], mean_area[i], over[i], low[i], high[i],
            int(sums.images[i]), over_low[i], over_high[i],
        )  # fmt: skip

"""How much region shares vary: over images, within an identity, and between identities.

With s the share of an image, m_p its mean over the n_p images of identity p:

    sd          standard deviation of s over all images
    cv_within   mean over p with n_p >= 2 and m_p > 0 of sd(s within p) / m_p
    cv_between  sd of the m_p over their mean

Standard deviations divide by n - 1. A map that is the person's own has a small cv_within and a large
cv_between.

Reference: arXiv 2509.17457, which gives coefficients of variation within identities.
"""

from dataclasses import dataclass

import numpy as np

from leamfast.analysis.shares import ShareSums, ratio

__all__ = ["Variation", "variation"]


@dataclass(frozen=True)
class Variation:
    """Variation of the shares of a map at each threshold and region.

    Attributes:
        sd: over images, (T, R); NaN for fewer than two.
        cv_within: (T, R); NaN where no identity has two images and a positive mean.
        cv_between: (T, R); NaN for fewer than two identities, or a mean of 0.
    """

    sd: np.ndarray
    cv_within: np.ndarray
    cv_between: np.ndarray


def variation(sums: ShareSums) -> Variation:
    """Variation of a map's shares."""
    count = sums.count[:, :, None]
    means = ratio(sums.share, count)
    away = np.where(count > 0, count * (means - sums.mean_share) ** 2, 0.0)
    squares = sums.spread.sum(axis=0) + away.sum(axis=0)
    sd = np.sqrt(ratio(squares, sums.images[:, None] - 1.0))

    within = np.sqrt(ratio(sums.spread, count - 1.0))
    cv = ratio(within, np.nan_to_num(means))
    usable = np.isfinite(cv)
    cv_within = ratio(np.where(usable, cv, 0.0).sum(axis=0), usable.sum(axis=0))

    there = (count > 0) & np.ones(means.shape, bool)
    people = there.sum(axis=0)
    centre = ratio(np.where(there, means, 0.0).sum(axis=0), people)
    off = np.where(there, means - centre, 0.0)
    cv_between = ratio(np.sqrt(ratio((off**2).sum(axis=0), people - 1.0)), np.nan_to_num(centre))
    return Variation(sd, cv_within, cv_between)

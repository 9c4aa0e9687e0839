"""The part of what a map gains over chance that the position prior does not have, with its interval.

    part = (own - prior) / (own - chance)

with prior the dearer of `other-identity` and `population`, and chance that of `random` and `shifted`.
"""

from dataclasses import dataclass

import numpy as np

from leamfast.analysis.bootstrap import Resampling, quantiles
from leamfast.analysis.occlusion_sums import DropSums
from leamfast.analysis.shares import ratio

__all__ = ["CHANCE", "NO_PART", "PRIOR", "SpecificPart", "specific_parts"]

PRIOR = ("other-identity", "population")
CHANCE = ("random", "shifted")


@dataclass(frozen=True)
class SpecificPart:
    """Of one map at one percent with one fill.

    Attributes:
        part: NaN where a control was not taken, or the map does not gain over chance.
        low, high: its 95% interval by resampling identities; NaN where one of the differences is of a single
            identity.
    """

    part: float
    low: float
    high: float


NO_PART = SpecificPart(np.nan, np.nan, np.nan)


def specific_parts(
    model: str, sums: DropSums, resampling: Resampling
) -> dict[tuple[str, str, float, str], SpecificPart]:
    """(model, map, percent, fill) -> the part, of some maps on their own model.

    Which controls are prior and chance is chosen once, by the means of the whole sample: where it could
    change from draw to draw, the dearer one would be chosen by its noise. Draws in which the map does not
    gain over chance leave the part undefined, and are left out: at most 2.5% of them where the interval of
    own - chance lies above 0.

    Args:
        model: source and evaluated model.
        sums: of the maps.
        resampling: of the rows' identities.
    """
    axes, drop = sums.axes, sums.drop
    keys = [
        (model, name, float(percent), fill)
        for name in axes.maps
        for percent in axes.percents
        for fill in axes.fills
    ]
    if not set(PRIOR + CHANCE) <= set(axes.controls):
        return dict.fromkeys(keys, NO_PART)
    over_prior, over_chance = (
        _dearer([axes.controls.index(control) for control in names], drop.difference, drop.both)
        for names in (PRIOR, CHANCE)
    )
    part = ratio(over_prior.mean, over_chance.mean)
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = over_chance.drawn(resampling)
        draws = over_prior.drawn(resampling) / np.where(gain > 0, gain, np.nan)
    usable = np.isfinite(part) & (over_prior.people > 1) & (over_chance.people > 1)
    low, high = quantiles(draws, usable)
    numbers = zip(part.tolist(), low.tolist(), high.tolist(), strict=True)
    return {key: SpecificPart(*of) for key, of in zip(keys, numbers, strict=True)}


@dataclass(frozen=True, eq=False)
class _Over:
    """Own - a control: sums and pairs of each identity, (person, k)."""

    difference: np.ndarray
    both: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return ratio(self.difference.sum(axis=0), self.both.sum(axis=0))

    @property
    def people(self) -> np.ndarray:
        return (self.both > 0).sum(axis=0)

    def drawn(self, resampling: Resampling) -> np.ndarray:
        """Mean in each draw, (DRAWS, k)."""
        return resampling.draw(self.difference) / resampling.draw(self.both)


def _dearer(controls: list[int], difference: np.ndarray, both: np.ndarray) -> _Over:
    """Own - that control over which the map gains least in each column (map, percent, fill), raveled."""
    people = len(both)
    found = [
        _Over(difference[:, :, :, c].reshape(people, -1), both[:, :, :, c].reshape(people, -1))
        for c in controls
    ]
    means = np.stack([one.mean for one in found])
    best = np.where(np.isnan(means).any(axis=0), np.isnan(means).argmax(axis=0), means.argmin(axis=0))
    columns = np.arange(len(best))
    return _Over(
        np.stack([one.difference for one in found])[best, :, columns].T,
        np.stack([one.both for one in found])[best, :, columns].T,
    )

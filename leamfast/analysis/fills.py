"""What the pixels are filled with: rows of `tables/fills.csv`, at equal area and at equal visible change.

Black changes a picture more than blur does on the same pixels. At equal area the drop mixes both: what the
pixels were good for, and how much could be seen of the fill. So drops are compared at equal visible change
too. Of one image and map, drop is a function of the change from percent to percent, which begins at no change
and drop 0; between two percents it is taken as linear in the change,

    mean squared error = 255^2 / 10^(PSNR / 10)      or      1 - SSIM

An image counts at a level where every fill reaches it, each at the first percent that does.

Reference: the second open question of arXiv 2509.17457.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.occlusion_blocks import Block, add_by
from leamfast.analysis.occlusion_statistics import intervals
from leamfast.analysis.shares import ratio
from leamfast.store.occlusion import OcclusionAxes

__all__ = ["PSNR_LEVELS", "SSIM_LEVELS", "FillRow", "FillSums", "at_change", "fill_rows"]

PSNR_LEVELS = (40.0, 35.0, 30.0, 25.0, 20.0)
"""Decibels: black on 1% of a crop of middle grey gives 26, blur on 20% of it about 30."""

SSIM_LEVELS = (0.99, 0.95, 0.9, 0.8)

PEAK = 255.0**2


@dataclass(frozen=True)
class FillRow:
    """One map of a model on that model, its own support filled with one fill.

    Attributes:
        compared_at: `area`, `psnr` or `ssim`.
        level: percent of the area, decibels, or SSIM.
        drop, low, high: mean over `n` (image, reference) pairs of `people` identities, with the 95% interval
            by resampling those. At `psnr` and `ssim` the same pairs for all fills: those of the images in
            which every fill reaches the level.
        psnr, ssim: means over the same pairs; of the PSNR over those that the fill changes at all.
    """

    model: str
    map: str
    compared_at: str
    level: float
    fill: str
    drop: float
    low: float
    high: float
    psnr: float
    ssim: float
    n: int
    people: int


@dataclass(frozen=True, eq=False)
class _Sums:
    """Over (person, map, level, fill), and (map, level, fill) for the means of what is seen."""

    total: np.ndarray
    count: np.ndarray
    seen: np.ndarray
    seen_count: np.ndarray

    @staticmethod
    def of(people: int, maps: int, levels: int, fills: int) -> "_Sums":
        shape = maps, levels, fills
        return _Sums(
            *(np.zeros((people, *shape)) for _ in range(2)), *(np.zeros((2, *shape)) for _ in range(2))
        )

    def add(
        self, person: np.ndarray, weight: np.ndarray, drop: np.ndarray, psnr: np.ndarray, ssim: np.ndarray
    ) -> None:
        """Add rows of (n, map, level, fill)."""
        weights = weight[:, None, None, None]
        found = np.isfinite(drop)
        add_by(self.total, person, np.where(found, drop, 0.0) * weights)
        add_by(self.count, person, found * weights)
        for number, values in enumerate((psnr, ssim)):
            there = found & np.isfinite(values)
            self.seen[number] += (np.where(there, values, 0.0) * weights).sum(axis=0)
            self.seen_count[number] += (there * weights).sum(axis=0)


class FillSums:
    """Drops of the own map by fill, at equal area and at equal visible change; a `Reduction`.

    Args:
        axes: of these maps.
        person: position of each row's identity among the people, (row,).
        people: how many there are.
    """

    def __init__(self, axes: OcclusionAxes, person: np.ndarray, people: int) -> None:
        self.axes = axes
        self.levels = {
            "area": tuple(float(percent) for percent in axes.percents),
            "psnr": PSNR_LEVELS,
            "ssim": SSIM_LEVELS,
        }
        self.sums = {
            name: _Sums.of(people, len(axes.maps), len(levels), len(axes.fills))
            for name, levels in self.levels.items()
        }
        self._person = person

    def add(self, block: Block) -> None:
        if block.arrays.psnr is None or block.arrays.ssim is None:
            raise ValueError("psnr and ssim must be there where several fills were asked for")
        person, weight = self._person[block.rows], block.weight
        drop = block.drop[:, :, :, 0]
        psnr, ssim = block.arrays.psnr.astype(np.float64), block.arrays.ssim.astype(np.float64)
        self.sums["area"].add(person, weight, drop, psnr, ssim)
        error, unlike = PEAK / 10 ** (psnr / 10), 1 - ssim
        for name, change, levels in (
            ("psnr", error, PEAK / 10 ** (np.array(PSNR_LEVELS) / 10)),
            ("ssim", unlike, 1 - np.array(SSIM_LEVELS)),
        ):
            at = at_change(change, np.stack([drop, error, unlike]), levels)
            # All fills or none, so that they are compared in the same images.
            at[:, ~np.isfinite(at).all(axis=(0, 4))] = np.nan
            dropped, errors, unlikes = at
            with np.errstate(divide="ignore"):
                decibels = 10 * np.log10(PEAK / errors)
            self.sums[name].add(person, weight, dropped, decibels, 1 - unlikes)


def at_change(change: np.ndarray, values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Values where the visible change first reaches levels, linear from percent to percent and from 0, 0.

    Args:
        change: at each percent, (n, map, percent, fill), 0 for none.
        values: what is wanted, (k, n, map, percent, fill), all of them 0 where nothing is changed.
        levels: of the change, (L,), positive.

    Returns:
        (k, n, map, L, fill); NaN where a level is not reached, or a value on either side of it is NaN.
    """
    change = np.concatenate([np.zeros_like(change[:, :, :1]), change], axis=2)
    values = np.concatenate([np.zeros_like(values[:, :, :, :1]), values], axis=3)
    found = []
    for level in levels:
        reached = change >= level
        after = reached.argmax(axis=2)[:, :, None]  # 0, which is below every level, where none does
        before = (after - 1).clip(min=0)
        low, high = (np.take_along_axis(change, place, 2) for place in (before, after))
        below, above = (
            np.take_along_axis(values, np.broadcast_to(place, (len(values), *place.shape)), 3)
            for place in (before, after)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            part = np.where(after > 0, (level - low) / (high - low), np.nan)
        found.append(below + part * (above - below))
    return np.concatenate(found, axis=3)


def fill_rows(model: str, sums: FillSums, resampling: Resampling) -> Iterator[FillRow]:
    """Rows of some maps.

    Args:
        model: source and evaluated model.
        sums: of the maps.
        resampling: of the rows' identities.
    """
    axes = sums.axes
    limits = {name: intervals(resampling, one.total, one.count) for name, one in sums.sums.items()}
    for m, name in enumerate(axes.maps):
        for compared_at, levels in sums.levels.items():
            one, (low, high) = sums.sums[compared_at], limits[compared_at]
            total, count = one.total[:, m].sum(axis=0), one.count[:, m].sum(axis=0)
            drop = ratio(total, count)
            psnr, ssim = ratio(one.seen[:, m], one.seen_count[:, m])
            people = (one.count[:, m] > 0).sum(axis=0)
            for t, f in np.ndindex(len(levels), len(axes.fills)):
                yield FillRow(
                    model, name, compared_at, levels[t], axes.fills[f], float(drop[t, f]),
                    float(low[m, t, f]), float(high[m, t, f]), float(psnr[t, f]), float(ssim[t, f]),
                    round(float(count[t, f])), int(people[t, f]),
                )  # fmt: skip

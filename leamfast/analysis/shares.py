"""Region shares and areas of a run, summed up by identity: what all tables of regions are made of."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leamfast.store.arrays import NO_LABEL
from leamfast.store.results import Results

__all__ = ["Masks", "ShareSums", "map_names", "masks_of_models", "ratio", "share_sums"]

ROWS_AT_ONCE = 128
"""Region masks counted together: 13 MB of positions for crops of 112 pixels."""


@dataclass(frozen=True)
class Masks:
    """What the region masks of a model's crops hold.

    Attributes:
        regions: names of the R regions that the run's parser can tell.
        area: fraction of each crop's pixels, unknown ones included, that each region covers, (row, R)
            float64; NaN for a crop without a mask.
    """

    regions: tuple[str, ...]
    area: np.ndarray


@dataclass(frozen=True)
class ShareSums:
    """The shares of one map, summed over the images of each identity that have a mask and a map.

    Attributes:
        model: its model.
        map: its tap, or `fused`.
        thresholds: the T percents.
        regions: names of the R regions.
        count: images, (person, T).
        share: sum of the shares, (person, T, R) float64.
        area: sum of the areas of the same images, (person, T, R) float64.
        spread: sum of squared differences of the shares from the identity's mean, (person, T, R) float64.
    """

    model: str
    map: str
    thresholds: tuple[int, ...]
    regions: tuple[str, ...]
    count: np.ndarray
    share: np.ndarray
    area: np.ndarray
    spread: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """Images that count at each threshold, (T,)."""
        return self.count.sum(axis=0)

    @property
    def mean_share(self) -> np.ndarray:
        """Mean share over images, (T, R); NaN where there is none."""
        return ratio(self.share.sum(axis=0), self.images[:, None])

    @property
    def mean_area(self) -> np.ndarray:
        """Mean area over the same images, (T, R); NaN where there is none."""
        return ratio(self.area.sum(axis=0), self.images[:, None])


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Quotient of two arrays, NaN where the bottom is not positive."""
    shape = np.broadcast_shapes(top.shape, bottom.shape)
    return np.divide(top, bottom, out=np.full(shape, np.nan), where=np.broadcast_to(bottom > 0, shape))


def map_names(results: Results, model: str) -> tuple[str, ...]:
    """A model's maps that have region shares: its taps in order of depth, then `fused`."""
    return (*results.taps(model), "fused")


def masks_of_models(results: Results) -> dict[str, Masks]:
    """Areas of the regions in the crops of each model; without the models whose crops have no region mask.

    Masks are read once for each size of crops, a block at a time.
    """
    found: dict[int, Masks | None] = {}
    for model in results.models:
        size = results.input_size(model)
        if size not in found:
            found[size] = _read_masks(results, model)
    of_models = ((model, found[results.input_size(model)]) for model in results.models)
    return {model: masks for model, masks in of_models if masks is not None}


def _read_masks(results: Results, model: str) -> Masks | None:
    names = tuple(results.text("region"))
    regions = results.regions(model)
    known = [names.index(region) for region in regions]
    area = np.full((len(results), len(known)), np.nan)
    for rows, labels in _labels(results, model):
        pixels = labels[0].size
        places = labels.reshape(len(labels), -1) + 256 * np.arange(len(labels))[:, None]
        counts = np.bincount(places.ravel(), minlength=256 * len(labels)).reshape(-1, 256)
        masked = counts[:, NO_LABEL] < pixels
        area[rows][masked] = counts[masked][:, known] / pixels
    if not np.isfinite(area).any():
        return None
    return Masks(regions, area)


def _labels(results: Results, model: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Region masks (n, size, size) of the rows, a few at a time; none where the run has none."""
    if results.has_masks(model):
        for start in range(0, len(results), ROWS_AT_ONCE):
            rows = slice(start, min(start + ROWS_AT_ONCE, len(results)))
            yield rows, results.labels(model, rows)


def share_sums(results: Results, model: str, name: str, masks: Masks, person: np.ndarray) -> ShareSums:
    """Sums of one map's shares by identity.

    Args:
        results: the run.
        model: the model.
        name: a tap, or `fused`.
        masks: of the model's crops.
        person: number of each row's identity, from 0 without gaps, (row,).
    """
    names = list(results.text("region"))
    known = [names.index(region) for region in masks.regions]
    stored = results.region_share(model, name)
    order = np.argsort(person, kind="stable")
    shape = int(person.max()) + 1, stored.shape[1], len(known)
    count = np.zeros(shape[:2], np.int64)
    share, area, spread = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for t in range(shape[1]):
        values = stored[order, t][:, known].astype(np.float64)
        found = np.isfinite(values).all(axis=1) & np.isfinite(masks.area[order]).all(axis=1)
        values, rows = values[found], order[found]
        if not len(rows):
            continue
        people, first, images = np.unique(person[rows], return_index=True, return_counts=True)
        count[people, t] = images
        share[people, t] = np.add.reduceat(values, first)
        area[people, t] = np.add.reduceat(masks.area[rows], first)
        # From the first image of each identity, so that equal images differ by nothing at all.
        values -= np.repeat(values[first], images, axis=0)
        values -= np.repeat(np.add.reduceat(values, first) / images[:, None], images, axis=0)
        spread[people, t] = np.add.reduceat(values**2, first)
    return ShareSums(model, name, results.thresholds, masks.regions, count, share, area, spread)

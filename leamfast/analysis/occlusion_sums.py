"""Drops summed up by identity: what all tables of occlusion are made of.

The drop of a stored row is the mean over its references. Times their number it is a sum over (image,
reference) pairs, so that sum / sum is the mean over pairs: an identity with many pairs weighs more.
"""

import numpy as np

from leamfast.analysis.occlusion_blocks import Block, add_by
from leamfast.analysis.shares import ratio
from leamfast.store.occlusion import OcclusionAxes

__all__ = ["DropSums", "PairedSums"]


class PairedSums:
    """Sums by identity of values of the own map and of its controls, and of their paired differences.

    Attributes:
        total: of the values, (person, ...) float64.
        count: pairs with a value, (person, ...) float64.
        difference: of own - control over the pairs that have both, (person, ...) float64.
        both: how many these are, (person, ...) float64.

    Args:
        people: how many identities.
        shape: of a row's values.
        axis: of `shape`, along which controls lie, `own` first.
    """

    def __init__(self, people: int, shape: tuple[int, ...], axis: int) -> None:
        self.axis = axis
        self.total, self.count, self.difference, self.both = (np.zeros((people, *shape)) for _ in range(4))

    def add(self, person: np.ndarray, weight: np.ndarray, values: np.ndarray) -> None:
        """Add rows.

        Args:
            person: position of each row's identity, (n,).
            weight: pairs of each row, (n,).
            values: (n, *shape), NaN where there is none.
        """
        weights = weight.reshape(-1, *[1] * (values.ndim - 1))
        own = np.take(values, [0], axis=self.axis + 1)
        for total, count, added in (
            (self.total, self.count, values),
            (self.difference, self.both, own - values),
        ):
            found = np.isfinite(added)
            add_by(total, person, np.where(found, added, 0.0) * weights)
            add_by(count, person, found * weights)


class DropSums:
    """All that is summed up of the drops of some maps; a `Reduction`.

    Attributes:
        axes: of these maps.
        drop: sums over (map, percent, control, fill).
        images: rows with a drop of the own map, at the smallest percent and the first fill, (person, map).

    Args:
        axes: of these maps.
        person: position of each row's identity among the people, (row,).
        people: how many there are.
    """

    def __init__(self, axes: OcclusionAxes, person: np.ndarray, people: int) -> None:
        self.axes = axes
        maps, percents = len(axes.maps), len(axes.percents)
        self.drop = PairedSums(people, (maps, percents, len(axes.controls), len(axes.fills)), 2)
        self.images = np.zeros((people, maps))
        self._person = person
        self._size, self._sized = np.zeros((maps, percents)), np.zeros((maps, percents))

    def add(self, block: Block) -> None:
        person = self._person[block.rows]
        self.drop.add(person, block.weight, block.drop)
        add_by(self.images, person, np.isfinite(block.drop[:, :, 0, 0, 0]).astype(np.float64))
        size = block.arrays.support_size.astype(np.float64)
        found = np.isfinite(size) & np.isfinite(block.drop[:, :, :, 0, 0])
        self._size += np.einsum("nmt,n->mt", np.where(found, size, 0.0), block.weight)
        self._sized += np.einsum("nmt,n->mt", found, block.weight)

    def support(self, side: int) -> np.ndarray:
        """Mean size of the own support over the size that was asked for, (map, percent); NaN without any.

        Args:
            side: of the crop, pixels.
        """
        asked = np.array([round(percent / 100 * side * side) for percent in self.axes.percents], np.float64)
        return ratio(ratio(self._size, self._sized), np.broadcast_to(asked, self._size.shape))

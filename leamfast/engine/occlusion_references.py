"""Which references an occluded image is compared with, and where they lie for each model."""

from functools import cached_property

import numpy as np

from leamfast.leam.references import SAME, draw_references
from leamfast.store.results import Results

__all__ = ["OcclusionReferences"]

ROWS = 4096
"""Embeddings that are read at once: of an identity there may be a million."""

DENSE = 16
"""Rows are read with all between them where these are at most so many times as many."""


class OcclusionReferences:
    """References of the images of a run, those that its maps were made with.

    `mean`: all other images of the identity. `mean-map`: those that were drawn for the image. `each`: one map
    has one reference.

    Args:
        results: the run.
        model: whose embeddings.
        policy: `mean`, `each` or `mean-map`.
        most, seed: of the draws of `mean-map`.
    """

    def __init__(self, results: Results, model: str, policy: str, most: int, seed: int) -> None:
        self.results, self.model = results, model
        self.policy, self.most, self.seed = policy, most, seed
        self._sums: dict[int, tuple[np.ndarray, int]] = {}

    def of(self, images: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean of the unit embeddings of the references of maps, and how many they are.

        Args:
            images: row of each map, (E,).
            references: row of its single reference, (E,); -1 where it has those of its image.

        Returns:
            (E, D) float32, not of unit length; and (E,) int64, 0 where there is none, and zeros with it.
        """
        units = self._units(images)
        means, counts = np.zeros(units.shape, np.float64), np.zeros(len(images), np.int64)
        single = references >= 0
        if single.any():
            means[single] = self._units(references[single])
            counts[single] = _usable(means[single])
        for i in np.flatnonzero(~single).tolist():
            if self.policy == "mean":
                total, number = self._sum(int(self.identities[images[i]]))
                own = int(_usable(units[i : i + 1])[0])
                means[i], counts[i] = total - units[i], number - own
            else:
                drawn = self._units(self.drawn(int(images[i])))
                drawn = drawn[drawn @ units[i] <= 1 - SAME]  # there is no map of an image and its equal
                means[i], counts[i] = drawn.sum(axis=0), int(_usable(drawn).sum())
        means /= np.maximum(counts, 1)[:, None]
        means[counts == 0] = 0
        return means.astype(np.float32), counts

    def drawn(self, image: int) -> np.ndarray:
        """Rows of the references that were drawn for an image of a run with `mean-map`."""
        rows = self.rows_of(int(self.identities[image]))
        positions = self._positions[rows]
        found = draw_references(positions, int(self._positions[image]), self.most, self.seed)
        return rows[np.searchsorted(positions, found)]

    def rows_of(self, identity: int) -> np.ndarray:
        """Rows of an identity, ascending."""
        order, identities = self._by_identity
        first, last = np.searchsorted(identities, [identity, identity + 1])
        return order[first:last]

    def forget(self) -> None:
        """Let go of what was summed up but for the last identity, which may go on in the next block."""
        for identity in list(self._sums)[:-1]:
            del self._sums[identity]

    def _sum(self, identity: int) -> tuple[np.ndarray, int]:
        """Sum of the unit embeddings of an identity, and how many there are."""
        if identity not in self._sums:
            rows = self.rows_of(identity)
            total: np.ndarray | float = 0.0
            number = 0
            for start in range(0, len(rows), ROWS):
                units = self._units(rows[start : start + ROWS])
                total = total + units.sum(axis=0)
                number += int(_usable(units).sum())
            self._sums[identity] = np.asarray(total), number
        return self._sums[identity]

    def _units(self, rows: np.ndarray) -> np.ndarray:
        """Unit embeddings of rows in any order, (n, D) float64; zeros where there is none."""
        wanted, inverse = np.unique(rows, return_inverse=True)
        if len(wanted) and wanted[-1] - wanted[0] < DENSE * len(wanted):  # HDF5 takes long over single rows
            between = self.results.embedding(self.model, slice(wanted[0], wanted[-1] + 1))
            vectors = between[wanted - wanted[0]].astype(np.float64)
        else:
            vectors = self.results.embedding(self.model, wanted).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        units[~np.isfinite(units).all(axis=1)] = 0
        return units[inverse.reshape(-1)]

    @cached_property
    def identities(self) -> np.ndarray:
        """Identity of each row of the run."""
        return self.results.identities

    @cached_property
    def _positions(self) -> np.ndarray:
        return self.results.file["image/position"][...]

    @cached_property
    def _by_identity(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.identities, kind="stable")
        return order, self.identities[order]


def _usable(units: np.ndarray) -> np.ndarray:
    return (units != 0).any(axis=1)

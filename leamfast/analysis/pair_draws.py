"""Bootstrap draws of identities, carried over to pairs of their images.

In a draw where identity p comes w_p times, a pair weighs

    w_p        where both images are of p
    w_p w_q    where they are of p and q: both identities of a pair are drawn

With pairs added up by identities first, the weights are made in blocks and meet all columns in one product
of matrices: a million pairs of ten thousand identities and a dozen columns take seconds. Weights w_p w_q vary
more than those of independent pairs would (by 3 against 1 where each pair of identities comes once), so that
intervals of D are too wide, not too narrow, where each identity is in few pairs and pairs are noisy.

Reference: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007.
"""

import numpy as np

from leamfast.analysis.bootstrap import DRAWS, Resampling

__all__ = ["PairDraws"]

CELLS = 128
"""Pairs of identities whose weights are numbers of eight bytes at the same time: 2 MB, which caches hold."""


class PairDraws:
    """How often each identity comes in each draw, the same draws as `Resampling` has.

    Args:
        resampling: of the identities that may occur in pairs.
    """

    def __init__(self, resampling: Resampling) -> None:
        self.people = resampling.people
        people = len(self.people)
        self._weights = np.empty((people, DRAWS), np.uint8)
        for start in range(0, people, CELLS):
            block = slice(start, min(start + CELLS, people))
            self._weights[block] = resampling.draw(np.eye(block.stop - start), block).T
        # Bytes multiply several times faster, and hold all products but those of a handful of people.
        self._product = np.uint8 if int(self._weights.max()) ** 2 < 256 else np.uint16

    def positions(self, identities: np.ndarray) -> np.ndarray:
        """Position in `people` of identity numbers.

        Raises:
            ValueError: one of them is not drawn from.
        """
        found = np.searchsorted(self.people, identities).clip(max=len(self.people) - 1)
        if (self.people[found] != identities).any():
            raise ValueError("identities of pairs must be among those that are resampled")
        return found

    def means(self, values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Weighted mean of each column in each draw, (DRAWS, k); NaN where a draw has no pair.

        Args:
            values: one row a pair, (n, k); NaN is left out column by column.
            first, second: identity numbers of both sides, (n,).
        """
        found = np.isfinite(values)
        a, b = self.positions(first), self.positions(second)
        keys, cell = np.unique(np.minimum(a, b) * len(self.people) + np.maximum(a, b), return_inverse=True)
        columns = [np.where(found[:, c], values[:, c], 0.0) for c in range(values.shape[1])]
        # Most columns have values for the same pairs, whose number is counted once.
        counts: dict[bytes, int] = {}
        number = [counts.setdefault(np.packbits(f).tobytes(), len(counts)) for f in found.T]
        columns += [found[:, number.index(c)].astype(float) for c in range(len(counts))]
        sums = np.empty((len(keys), len(columns)))
        for c, column in enumerate(columns):
            sums[:, c] = np.bincount(cell, column, minlength=len(keys))
        drawn = self._sums(sums, keys // len(self.people), keys % len(self.people))
        with np.errstate(invalid="ignore", divide="ignore"):
            return drawn[:, : values.shape[1]] / drawn[:, values.shape[1] :][:, number]

    def _sums(self, sums: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """What sums over pairs of identities, (cells, k), come to in each draw, (DRAWS, k)."""
        drawn = np.zeros((sums.shape[1], DRAWS))
        crossed = first != second
        for start in range(0, len(sums), CELLS):
            block = slice(start, start + CELLS)
            weights = self._weights[first[block]]
            if crossed[block].any():
                other = self._weights[second[block]]
                other[~crossed[block]] = 1
                weights = np.multiply(weights, other, dtype=self._product)
            drawn += sums[block].T @ weights.astype(np.float64)
        return drawn.T

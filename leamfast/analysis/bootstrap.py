"""Intervals by resampling identities: images of one person are not independent of each other."""

import numpy as np

__all__ = ["DRAWS", "Resampling", "mean_interval", "quantiles"]

DRAWS = 2000
LEVEL = 0.95
BLOCK = 4096
"""Identities whose weights are numbers of eight bytes at the same time: 64 MB of them."""


class Resampling:
    """How often each identity comes in each bootstrap draw; made once, used for every column of every table.

    Attributes:
        people: the identity numbers, ascending, (P,).
        person: position in `people` of each row, (n,).

    Args:
        identities: identity number of each row, (n,), at least one.
        seed: of the resampling.
    """

    def __init__(self, identities: np.ndarray, seed: int = 0) -> None:
        self.people, self.person = np.unique(identities, return_inverse=True)
        people = len(self.people)
        rng = np.random.default_rng(seed)
        chances = np.full(people, 1 / people)
        # A byte each: that one of P identities comes 256 times in P draws does not happen.
        self._weights = np.empty((DRAWS, people), np.uint8)
        step = max(1, BLOCK * 256 // people)
        for start in range(0, DRAWS, step):
            size = min(step, DRAWS - start)
            self._weights[start : start + size] = rng.multinomial(people, chances, size)

    def draw(self, sums: np.ndarray, people: slice = slice(None)) -> np.ndarray:
        """What sums over identities come to in each draw, (DRAWS, k).

        Args:
            sums: one row an identity, (P, k), or those of a slice of `people`.
            people: which.
        """
        weights = self._weights[:, people]
        drawn = np.zeros((DRAWS, sums.shape[1]))
        for start in range(0, len(sums), BLOCK):
            block = slice(start, start + BLOCK)
            drawn += weights[:, block].astype(np.float64) @ sums[block]
        return drawn

    def draw_squared(self, sums: np.ndarray) -> np.ndarray:
        """As `draw`, with the squares of the weights."""
        drawn = np.zeros((DRAWS, sums.shape[1]))
        for start in range(0, len(sums), BLOCK):
            block = slice(start, start + BLOCK)
            drawn += self._weights[:, block].astype(np.float64) ** 2 @ sums[block]
        return drawn

    def ratio_interval(self, top: np.ndarray, bottom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 95% interval of sum(top) / sum(bottom), identities drawn with replacement.

        Args:
            top: sums of each identity, (P, ...).
            bottom: sums of each identity, of the same shape, not negative.

        Returns:
            low and high, (...) each; NaN where fewer than two identities have a positive bottom.
        """
        shape = top.shape[1:]
        top, bottom = top.reshape(len(top), -1), bottom.reshape(len(bottom), -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = self.draw(top) / self.draw(bottom)
        # One person says nothing of others.
        low, high = quantiles(draws, (bottom > 0).sum(axis=0) > 1)
        return low.reshape(shape), high.reshape(shape)


def quantiles(draws: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the 95% interval of draws, without those that are not finite; NaN where not usable.

    Args:
        draws: one statistic a column, (DRAWS, k).
        usable: which columns may have an interval, (k,).
    """
    draws = np.where(np.isfinite(draws), draws, np.nan)
    usable = usable & np.isfinite(draws).any(axis=0)
    low, high = np.full(draws.shape[1], np.nan), np.full(draws.shape[1], np.nan)
    tail = (1 - LEVEL) / 2
    if usable.any():
        low[usable], high[usable] = np.nanquantile(draws[:, usable], [tail, 1 - tail], axis=0)
    return low, high


def mean_interval(
    values: np.ndarray, identities: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean over images, with an interval by a bootstrap over identities.

    Args:
        values: one row an image, (n, k); NaN is left out column by column.
        identities: identity number of each row, (n,).
        seed: of the resampling.

    Returns:
        mean, low and high (the 95% interval), and the number of images, (k,) each; NaN where there is none.
    """
    resampling = Resampling(identities, seed)
    found = np.isfinite(values)
    sums = np.zeros((len(resampling.people), values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, resampling.person, np.where(found, values, 0.0))
    np.add.at(counts, resampling.person, found)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.sum(0) / counts.sum(0)
    low, high = resampling.ratio_interval(sums, counts)
    return mean, low, high, counts.sum(0).astype(int)

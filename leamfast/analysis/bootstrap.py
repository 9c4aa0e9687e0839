"""Intervals by resampling identities: images of one person are not independent of each other."""

import numpy as np

__all__ = ["mean_interval"]

DRAWS = 2000
LEVEL = 0.95


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
    people, person = np.unique(identities, return_inverse=True)
    found = np.isfinite(values)
    sums = np.zeros((len(people), values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, person, np.where(found, values, 0.0))
    np.add.at(counts, person, found)
    chances = np.full(len(people), 1 / len(people))
    weights = np.random.default_rng(seed).multinomial(len(people), chances, DRAWS)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.sum(0) / counts.sum(0)
        draws = (weights @ sums) / (weights @ counts)
    low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    usable = np.isfinite(draws).any(axis=0) & (len(people) > 1)  # one person says nothing of others
    tail = (1 - LEVEL) / 2
    low[usable], high[usable] = np.nanquantile(draws[:, usable], [tail, 1 - tail], axis=0)
    return mean, low, high, counts.sum(0).astype(int)

"""A test of whether maps of one person are more alike than chance, by dealing identities anew to images.

Pairs are not exchangeable: those that share an image or a person go together, and permuting pairs makes
p-values far too small. Images are, if identity means nothing.
"""

import numpy as np

__all__ = ["PERMUTATIONS", "THINNEST", "permutation_p"]

PERMUTATIONS = 999
"""The smallest p-value is 1 / 1000."""

THINNEST = 0.25
"""Pairs of one person that a permutation makes, over those there are: with fewer there is no p-value.

It is 1 where all pairs of the images are there. At a quarter the difference varies at least twice as much in
permutations as it should, and a p-value that is not small would say more of the sample than of the maps.
"""


def permutation_p(
    values: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
    identities: np.ndarray,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> np.ndarray:
    """Chance of so large a difference of means, same over different identity, if identity meant nothing.

    Several values of the same two images, as maps of single references have them, count as their mean. The
    identities are dealt anew to the images that occur, which keeps how many images each has and which
    pairs share an image. p = (1 + permutations with at least this difference) / (1 + permutations).

    This is exact where all pairs of the images are there. Where pairs of different people are a sample, fewer
    pairs become pairs of one person than there were, their mean varies more, and p is too large rather than
    too small; see `THINNEST`. A permutation without a pair of one person counts as one with at least this
    difference.

    Args:
        values: one row a pair, (n, k), larger where maps are more alike; NaN is left out column by column.
        i, j: row numbers of both images, (n,).
        identities: identity number of each row.
        seed: of the permutations.
        permutations: how many.

    Returns:
        p (k,); NaN where there are no pairs of the same or none of different people, or too thin a sample.
    """
    rows, place = np.unique(np.concatenate([i, j]), return_inverse=True)
    label = np.unique(identities[rows], return_inverse=True)[1].astype(np.int32)
    values, a, b = _of_images(values, place[: len(i)], place[len(i) :])
    images = np.bincount(label)
    chance = (images * (images - 1)).sum() / max(1, len(rows) * (len(rows) - 1))
    found = np.isfinite(values)
    thin = found.sum(axis=0) * chance < THINNEST * found[label[a] == label[b]].sum(axis=0)
    if thin.all():
        return np.full(values.shape[1], np.nan)
    filled = np.where(found, values, 0.0)
    total, count = filled.sum(axis=0), found.sum(axis=0)

    def difference(labels: np.ndarray) -> np.ndarray:
        same = np.flatnonzero(labels[a] == labels[b])
        inside, number = filled[same].sum(axis=0), found[same].sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return inside / number - (total - inside) / (count - number)

    observed = difference(label)
    # Equal differences may differ in their last bits, as sums in another order do.
    least = observed - 1e-12 * (1 + np.abs(observed))
    rng = np.random.default_rng(seed)
    reached = np.zeros(values.shape[1], np.int64)
    for _ in range(permutations):
        reached += ~(difference(rng.permutation(label)) < least)
    return np.where(np.isfinite(observed) & ~thin, (1 + reached) / (1 + permutations), np.nan)


def _of_images(values: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over the pairs of the same two images, (m, k), NaN left out; and these images, (m,) each."""
    images = np.maximum(a, b).max(initial=0) + 1
    keys, pair = np.unique(np.minimum(a, b) * images + np.maximum(a, b), return_inverse=True)
    means = np.empty((len(keys), values.shape[1]))
    for column in range(values.shape[1]):
        there = np.isfinite(values[:, column])
        total = np.bincount(pair[there], values[there, column], minlength=len(keys))
        with np.errstate(invalid="ignore", divide="ignore"):
            means[:, column] = total / np.bincount(pair[there], minlength=len(keys))
    return means, keys // images, keys % images

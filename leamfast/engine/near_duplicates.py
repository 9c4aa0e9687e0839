"""Images of a person that are nearly the same picture: they would agree about anything."""

import itertools
from collections.abc import Sequence

import numpy as np

__all__ = ["NEAR", "near_duplicates", "nearly_repeated"]

NEAR = 0.98
"""Cosine of embeddings above which two images of an identity are near-duplicates."""

ROWS = 1024
"""Compared at once with as many."""


def near_duplicates(embeddings: np.ndarray, identities: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The image that each image nearly repeats.

    Args:
        embeddings: (n, D), not normalised.
        identities: number of each row's identity; equal ones adjacent.

    Returns:
        The first earlier row of the same identity with a cosine above `NEAR`, (n,) int64, -1 where there is
        none; and that cosine, (n,) float64, NaN where there is none.
    """
    first = np.full(len(embeddings), -1, np.int64)
    cosines = np.full(len(embeddings), np.nan)
    edges = np.flatnonzero(np.diff(np.asarray(identities), prepend=-1, append=-1))
    for start, end in itertools.pairwise(edges.tolist()):
        own, cosines[start:end] = nearly_repeated(embeddings[start:end], np.arange(end - start))
        first[start:end] = np.where(own < 0, own, own + start)
    return first, cosines


def nearly_repeated(embeddings: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image that each of some images of one identity nearly repeats.

    Args:
        embeddings: of the whole identity, (n, D), not normalised.
        images: numbers of the images in question, (m,), ascending.

    Returns:
        As `near_duplicates`, (m,) each.
    """
    first = np.full(len(images), -1, np.int64)
    cosines = np.full(len(images), np.nan)
    for top in range(0, len(images), ROWS):
        rows = images[top : top + ROWS]
        mine = _units(embeddings[rows])
        for left in range(0, rows[-1] + 1, ROWS):
            others = np.arange(left, min(left + ROWS, rows[-1] + 1))
            near = mine @ _units(embeddings[others]).T
            near[others >= rows[:, None]] = 0  # not earlier
            found = np.flatnonzero((near > NEAR).any(axis=1) & (first[top : top + len(rows)] < 0))
            which = (near[found] > NEAR).argmax(axis=1)
            first[top + found] = others[which]
            cosines[top + found] = near[found, which]
    return first, cosines


def _units(embeddings: np.ndarray) -> np.ndarray:
    """float64; zeros for an embedding without a direction."""
    values = embeddings.astype(np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, norms, out=np.zeros_like(values), where=np.isfinite(norms) & (norms > 0))

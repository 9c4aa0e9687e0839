"""Images of a person that are nearly the same picture: they would agree about anything."""

import itertools
from collections.abc import Sequence

import numpy as np

__all__ = ["NEAR", "near_duplicates"]

NEAR = 0.98
"""Cosine of embeddings above which two images of an identity are near-duplicates."""

ROWS = 1024  # compared at once with all before them


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
        units = embeddings[start:end].astype(np.float64)
        norms = np.linalg.norm(units, axis=1, keepdims=True)
        units = np.divide(units, norms, out=np.zeros_like(units), where=np.isfinite(norms) & (norms > 0))
        for top in range(0, len(units), ROWS):
            rows = np.arange(top, min(top + ROWS, len(units)))
            near = units[rows] @ units[: rows[-1] + 1].T
            near[:, top:][np.triu_indices(len(rows))] = 0  # not earlier
            found = np.flatnonzero((near > NEAR).any(axis=1))
            others = (near[found] > NEAR).argmax(axis=1)
            first[start + rows[found]] = start + others
            cosines[start + rows[found]] = near[found, others]
    return first, cosines

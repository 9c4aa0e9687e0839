"""How well embeddings tell people apart: area under the ROC curve and true-accept rate."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["pair_cosines", "same_different_auc", "true_accept_rate"]


def pair_cosines(
    vectors: NDArray[np.float32], people: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines of all pairs of pictures: those of the same person, and those of different people.

    Args:
        vectors: one row for each picture, (N, D).
        people: the person of each picture, (N,).
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    i, j = np.triu_indices(len(unit), 1)
    cosine, same = (unit @ unit.T)[i, j], people[i] == people[j]
    return cosine[same], cosine[~same]


def same_different_auc(vectors: NDArray[np.float32], people: NDArray[np.int64]) -> float:
    """How often the cosine of a pair of the same person exceeds that of a pair of different people.

    Returns:
        Area under the ROC curve over all pairs, 0.5 chance, 1 perfect; ties count half.
    """
    same, different = pair_cosines(vectors, people)
    different = np.sort(different)
    below = np.searchsorted(different, same, "left") + np.searchsorted(different, same, "right")
    return float(below.mean() / (2 * len(different)))


def true_accept_rate(
    vectors: NDArray[np.float32], people: NDArray[np.int64], false_accepts: float = 1e-2
) -> float:
    """Share of the pairs of the same person above the threshold that `false_accepts` of the others pass."""
    same, different = pair_cosines(vectors, people)
    return float((same > np.quantile(different, 1 - false_accepts)).mean())

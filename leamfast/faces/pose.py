"""How a head is turned, from five points of its face alone: what a similarity onto the template leaves over.

Rotation in the picture, scale and place are taken out; a head that turns or nods moves its nose against its
eyes and mouth. The shape of a face remains in what is left, so poses are compared within one person.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from leamfast.faces.alignment import ARCFACE_TEMPLATE
from leamfast.faces.regions import region_index

__all__ = ["nearest_pose", "points_of_labels", "pose_vectors"]

MOUTH = ("imouth", "llip", "ulip")
DISTANCES = 4_000_000
"""Distances that are held at a time."""
MASK_CELLS = 16_000_000
"""Pixels of masks that are looked at together."""
LEAST_SPREAD = 1e-6
"""Sum of squared distances of the points from their mean, in square pixels, below which they coincide."""


def pose_vectors(points: ArrayLike) -> NDArray[np.float64]:
    """What the best similarity onto the ArcFace template leaves over, in units of its eye distance.

    With p and q the centred points and template as complex numbers, a = sum conj(p) q / sum |p|^2 is the
    least-squares rotation and scale (which never reflects), and the vector is (a p - q) / |q_1 - q_0|.

    Args:
        points: image-left eye, image-right eye, nose, image-left and -right mouth corner, shape (n, 5, 2) as
            (x, y), in pixels.

    Returns:
        x and y of each point after the other, shape (n, 10); NaN for rows with a point that is not finite,
        and where the points coincide.

    Raises:
        ValueError: points have another shape.

    Reference: S. Umeyama, Least-squares estimation of transformation parameters between two point patterns,
    IEEE TPAMI 13(4), 1991.
    """
    source = np.asarray(points, np.float64)
    if source.ndim != 3 or source.shape[1:] != ARCFACE_TEMPLATE.shape:
        raise ValueError(f"points must have shape (n, 5, 2), got {source.shape}")
    vectors = np.full((len(source), 10), np.nan)
    known = np.flatnonzero(np.isfinite(source).all(axis=(1, 2)))
    p, q = _centred(source[known]), _centred(ARCFACE_TEMPLATE)
    spread = (np.abs(p) ** 2).sum(axis=1)
    apart = spread >= LEAST_SPREAD
    known, p, spread = known[apart], p[apart], spread[apart]
    turn = (p.conj() * q).sum(axis=1) / spread
    left = (turn[:, None] * p - q) / np.abs(q[1] - q[0])
    vectors[known] = np.stack([left.real, left.imag], axis=2).reshape(len(known), 10)
    return vectors


def points_of_labels(labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Five points of each face from its region mask, where no detector has given them.

    The eyes and the nose are the centroids of their regions. The mouth ends in the first and the last column
    that lips or the inside of the mouth reach, at the mean height of what of them lies there.

    Args:
        labels: region masks, shape (n, S, S), indices of `REGIONS`.

    Returns:
        Points as `pose_vectors` takes them, shape (n, 5, 2), float64; NaN where a region has no pixel.

    Raises:
        ValueError: labels have another shape.
    """
    if labels.ndim != 3:
        raise ValueError(f"labels must have shape (n, S, S), got {labels.shape}")
    found = np.full((len(labels), *ARCFACE_TEMPLATE.shape), np.nan)
    held = max(1, MASK_CELLS // max(1, labels[0].size)) if len(labels) else 1
    # The person's right is at the left of the picture.
    centroids = [region_index(name) for name in ("re", "le", "nose")]
    mouth = [region_index(name) for name in MOUTH]
    for start in range(0, len(labels), held):
        block = labels[start : start + held]
        into = found[start : start + held]
        for place, region in enumerate(centroids):
            into[:, place] = _centroids(block == region)
        into[:, 3:] = _ends(np.isin(block, mouth))
    return found


def nearest_pose(vectors: NDArray[np.float64], identities: NDArray[np.integer]) -> NDArray[np.int64]:
    """For each row the other row of its identity whose pose vector is nearest.

    Args:
        vectors: of `pose_vectors`, shape (n, d); rows with a NaN have no neighbour and are none.
        identities: person number of each row, shape (n,); rows below 0 are no one's.

    Returns:
        Row numbers, shape (n,); the lowest one of several at the same distance, -1 where there is none.

    Raises:
        ValueError: the numbers of rows differ.
    """
    if vectors.ndim != 2 or identities.shape != (len(vectors),):
        raise ValueError(
            f"vectors and identities must have shapes (n, d) and (n,), got {vectors.shape} and "
            f"{identities.shape}"
        )
    nearest = np.full(len(vectors), -1, np.int64)
    usable = np.flatnonzero(np.isfinite(vectors).all(axis=1) & (identities >= 0))
    usable = usable[np.argsort(identities[usable], kind="stable")]
    if not len(usable):
        return nearest
    starts = np.flatnonzero(np.diff(identities[usable])) + 1
    for rows in np.split(usable, starts):
        if len(rows) > 1:
            nearest[rows] = rows[_nearest(vectors[rows])]
    return nearest


def _centred(points: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Points (..., 5, 2) less their mean, as complex numbers (..., 5)."""
    centred = points - points.mean(axis=-2, keepdims=True)
    return centred[..., 0] + 1j * centred[..., 1]


def _centroids(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Centres (n, 2) as (x, y) of masks (n, h, w); NaN of an empty one."""
    return np.stack([_means(masks.sum(axis=1)), _means(masks.sum(axis=2))], axis=1)


def _ends(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean places (n, 2, 2) of what lies in the first and in the last column of masks (n, h, w)."""
    count, _, width = masks.shape
    columns = masks.sum(axis=1) > 0
    there = columns.sum(axis=1) > 0
    ends = np.full((count, 2, 2), np.nan)
    for side, x in enumerate((columns.argmax(axis=1), width - 1 - columns[:, ::-1].argmax(axis=1))):
        ends[there, side, 0] = x[there]
        ends[:, side, 1] = _means(masks[np.arange(count), :, x])
    return ends


def _means(weights: NDArray) -> NDArray[np.float64]:
    """Mean position (n,) along weights (n, m); NaN where all are 0."""
    total = weights.sum(axis=1).astype(np.float64)
    total[total == 0] = np.nan
    return weights @ np.arange(weights.shape[1], dtype=np.float64) / total


def _nearest(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Position of the nearest other vector of each, block by block; the first of several."""
    found = np.empty(len(vectors), np.int64)
    held = max(1, DISTANCES // len(vectors))
    for start in range(0, len(vectors), held):
        block = vectors[start : start + held]
        distances = cdist(block, vectors, "sqeuclidean")
        own = np.arange(len(block))
        distances[own, start + own] = np.inf
        found[start : start + held] = distances.argmin(axis=1)
    return found

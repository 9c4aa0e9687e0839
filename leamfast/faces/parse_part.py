"""The part of a photo that a parser sees: cut out, shrunk where it is large, and its labels put back."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leamfast.faces.alignment import FaceError, resize_image
from leamfast.faces.parse_names import UNKNOWN

__all__ = ["Part", "cut_part"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Part:
    """The part of a photo that is parsed.

    Attributes:
        pixels: shape (h, w, 3), uint8.
        points: of the face, in coordinates of the part, shape (5, 2), float32.
        place: where it lies in the photo: left, top, right, bottom.
    """

    pixels: Pixels
    points: NDArray[np.float32]
    place: tuple[int, int, int, int]

    def paste(self, labels: Pixels, shape: tuple[int, ...]) -> Pixels:
        """Labels of the photo from those of the part, nearest pixel, `UNKNOWN` around it."""
        left, top, right, bottom = self.place
        rows = ((np.arange(bottom - top) + 0.5) * (labels.shape[0] / (bottom - top))).astype(int)
        columns = ((np.arange(right - left) + 0.5) * (labels.shape[1] / (right - left))).astype(int)
        whole = np.full(shape[:2], UNKNOWN, np.uint8)
        whole[top:bottom, left:right] = labels[rows[:, None], columns]
        return whole


def cut_part(
    photo: Pixels, points: NDArray[np.float32], quad: Callable[[Tensor], Tensor], longest: int
) -> Part:
    """What a parser's crop covers of a photo, with two pixels around it.

    Args:
        photo: shape (H, W, 3), uint8.
        points: of the face, shape (5, 2), float32, pixel centres at integers.
        quad: from points to the corners of the crop, (4, 2), pixel edges at integers: facer's `get_quad`.
        longest: longest side of the part; it is shrunk where it is larger.

    Raises:
        FaceError: the crop lies outside the photo, or the points make none.
    """
    height, width = photo.shape[:2]
    with np.errstate(invalid="ignore", divide="ignore"):
        corners = quad(torch.from_numpy(np.array(points, np.float32))).numpy()
    if not np.isfinite(corners).all():
        raise FaceError("face points are not finite or coincide")
    limits = np.array([width, height])
    left, top = np.clip(np.floor(corners.min(axis=0)) - 2, 0, limits).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + 2, 0, limits).astype(int).tolist()
    if left >= right or top >= bottom:
        raise FaceError("face lies outside the picture")
    pixels = photo[top:bottom, left:right]
    size = np.array([right - left, bottom - top])
    small = np.maximum(1, np.round(size * min(1.0, longest / size.max()))).astype(int)
    moved = (points - np.array([left, top]) + 0.5) * (small / size) - 0.5
    pixels = np.ascontiguousarray(resize_image(pixels, int(small[0]), int(small[1])))
    return Part(pixels, moved.astype(np.float32), (left, top, right, bottom))

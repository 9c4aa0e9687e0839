"""Face alignment: similarities from five points onto the ArcFace template and from 68 landmarks to the
upright, symmetric crop of the paper; and warping with them.

One convention throughout: a pixel's centre has integer coordinates (x, y), and a transform (2, 3) maps
coordinates of the input picture to coordinates of the crop. A plain resize by the factor f is then
x' = (x + 0.5) f - 0.5, and so a crop and its transform agree to a fraction of a pixel at every scale.

Reference: S. Umeyama, Least-squares estimation of transformation parameters between two point patterns,
IEEE TPAMI 13(4), 1991. In the plane the rotation-scale part is one complex number,
a = sum conj(p) q / sum |p|^2 with p and q the centred points, which never reflects.
"""

from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leamfast.errors import RequestError
from leamfast.faces.parse_names import UNKNOWN

__all__ = [
    "ARCFACE_TEMPLATE",
    "MIRRORED",
    "FaceError",
    "five_points",
    "import_opencv",
    "paper_transform",
    "resize_crop",
    "resize_image",
    "resize_label",
    "similarity_transform",
    "warp_image",
    "warp_label",
]

Pixels = NDArray[np.uint8]
Transform = NDArray[np.float64]

TEMPLATE_SIZE = 112
ARCFACE_TEMPLATE: NDArray[np.float64] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""Image-left and -right eye, nose, image-left and -right mouth corner at 112x112, shape (5, 2) as (x, y)."""
ARCFACE_TEMPLATE.setflags(write=False)

MIRRORED: NDArray[np.intp] = np.concatenate(
    [
        np.arange(16, -1, -1),  # jaw, from ear to ear
        np.arange(26, 16, -1),  # brows
        np.arange(27, 31),  # bridge of the nose
        np.arange(35, 30, -1),  # its base
        [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],  # eyes
        [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55],  # lips outside
        [64, 63, 62, 61, 60, 67, 66, 65],  # lips inside
    ]
)
"""Landmark that each of the 68 becomes in the mirror image, shape (68,); midline points stay themselves."""
MIRRORED.setflags(write=False)

ABOVE_BROWS, BELOW_CHIN, BESIDE_JAW = 0.25, 0.1, 0.1
"""Margins of the paper's crop around the landmarks, in parts of their height, height and width."""


class FaceError(ValueError):
    """A picture cannot be turned into one face crop; the message is the reason in a few plain words."""


def similarity_transform(points: ArrayLike, size: int) -> Transform:
    """Least-squares similarity (rotation, scale, shift, no reflection) from a face to the template.

    Args:
        points: five points in the picture, shape (5, 2) as (x, y), in the order of `ARCFACE_TEMPLATE`.
        size: side of the crop in pixels; the template is scaled by size / 112.

    Returns:
        Transform from picture to crop coordinates, shape (2, 3), float64.

    Raises:
        FaceError: points are not finite, coincide, or fit the template only by a mirror image.
        ValueError: points have another shape, or size is not positive.
    """
    source = np.asarray(points, dtype=np.float64)
    if source.shape != ARCFACE_TEMPLATE.shape:
        raise ValueError(f"points must have shape (5, 2), got {source.shape}")
    _check_size(size)
    if not np.isfinite(source).all():
        raise FaceError("face points are not finite")
    target = ARCFACE_TEMPLATE * (size / TEMPLATE_SIZE)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    p = (source - source_mean) @ np.array([1, 1j])
    q = (target - target_mean) @ np.array([1, 1j])
    spread = np.vdot(p, p).real
    if spread < 1e-6:
        raise FaceError("face points coincide")
    a = np.vdot(p, q) / spread
    # |a|^2 spread / |q|^2 is the share of the template that the fit explains: 1 for an exact fit.
    if abs(a) ** 2 * spread < 1e-6 * np.vdot(q, q).real:
        raise FaceError("face points do not resemble a face")
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def five_points(landmarks: ArrayLike) -> NDArray[np.float64]:
    """The five points of `ARCFACE_TEMPLATE` from 68 landmarks.

    Args:
        landmarks: shape (68, 2) as (x, y), in the order of 300-W (iBUG), counted from 0.

    Returns:
        Eye centres (means of landmarks 36..41 and 42..47), tip of the nose (30) and corners of the mouth
        (48, 54), shape (5, 2).
    """
    points = _landmarks(landmarks)
    return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), *points[[30, 48, 54]]])


def paper_transform(landmarks: ArrayLike, size: int) -> Transform:
    """The paper's alignment: eyes level, face axis vertical, then a square around the landmarks.

    With z_j = x_j + i y_j the centred landmarks and m(j) the mirror partner of j (`MIRRORED`), the rotation
    by t makes the face most symmetric about a vertical axis,

        t = argmin sum_j |e^{it} z_j + conj(e^{it} z_m(j))|^2 = (pi - arg sum_j z_j z_m(j)) / 2   (mod pi),

    and of its two solutions the one that puts the image-left eye left. A symmetric face gets level eyes and a
    vertical axis exactly; where a turned head makes the two disagree, all 68 points share the difference.

    With w, h the width and height of the rotated landmarks' bounds, the crop is the square of side
    max(1.35 h, 1.2 w) that is centred on the bounds across, and whose height beyond h lies above and below
    them as 0.25 to 0.1: at least 0.25 h above the brows, 0.1 h below the chin, 0.1 w beside the jaw.

    Args:
        landmarks: shape (68, 2) as (x, y), in the order of 300-W.
        size: side of the crop in pixels; its outer edges are those of the square.

    Returns:
        Transform from picture to crop coordinates, shape (2, 3), float64; a similarity without reflection.

    Raises:
        FaceError: landmarks are not finite, coincide, or are no face (no symmetry, or a mirror image).
        ValueError: landmarks have another shape, or size is not positive.
    """
    points = _landmarks(landmarks)
    _check_size(size)
    if not np.isfinite(points).all():
        raise FaceError("face landmarks are not finite")
    z = (points - points.mean(axis=0)) @ np.array([1, 1j])
    spread = np.vdot(z, z).real
    if spread < 1e-6:
        raise FaceError("face landmarks coincide")
    symmetry = np.sum(z * z[MIRRORED])
    # |symmetry| / spread is 1 for a symmetric face, and was at least 0.97 on the 61 photos of the tests.
    if abs(symmetry) < 0.5 * spread:
        raise FaceError("face landmarks do not resemble a face")
    turn = np.exp(0.5j * (np.pi - np.angle(symmetry)))
    if (turn * (z[42:48].mean() - z[36:42].mean())).real < 0:
        turn = -turn
    upright = turn * z
    left_eye, right_eye, chin = upright[36:42].mean(), upright[42:48].mean(), upright[8]
    if not (left_eye.real < right_eye.real and max(left_eye.imag, right_eye.imag) < chin.imag):
        raise FaceError("face landmarks do not resemble a face")
    left, right = upright.real.min(), upright.real.max()
    top, bottom = upright.imag.min(), upright.imag.max()
    height, width = bottom - top, right - left
    side = max((1 + ABOVE_BROWS + BELOW_CHIN) * height, (1 + 2 * BESIDE_JAW) * width)
    corner_x = (left + right - side) / 2
    corner_y = top - (side - height) * ABOVE_BROWS / (ABOVE_BROWS + BELOW_CHIN)
    linear = size / side * np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    shift = -np.array([corner_x, corner_y]) * size / side - 0.5
    return np.column_stack([linear, shift - linear @ points.mean(axis=0)])


def warp_image(image: Pixels, transform: ArrayLike, size: int) -> Pixels:
    """Crop (size, size, 3) of an image (H, W, 3), uint8: bilinear, 0 outside the image."""
    return _warp(image, transform, size, "INTER_LINEAR", 0)


def warp_label(label: Pixels, transform: ArrayLike, size: int) -> Pixels:
    """Crop (size, size) of labels (H, W), uint8: those of the nearest pixel, and outside of them `UNKNOWN`.

    Nobody knows what a photo leaves out: it is no background.
    """
    return _warp(label, transform, size, "INTER_NEAREST", UNKNOWN)


def resize_image(image: Pixels, width: int, height: int) -> Pixels:
    """Image (H, W, 3) at (height, width, 3): pixel areas where it shrinks, bilinear where it grows."""
    if image.shape[:2] == (height, width):
        return image
    cv2 = import_opencv()
    shrinks = width <= image.shape[1] and height <= image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_crop(image: Pixels, size: int) -> tuple[Pixels, Transform]:
    """Bring a face crop that is aligned already to the model's input size.

    Args:
        image: square crop, shape (S, S, 3), uint8.
        size: side of the result in pixels.

    Returns:
        The crop, shape (size, size, 3), with unchanged pixels where S = size, and the transform (2, 3)
        from the coordinates of `image` to its own.

    Raises:
        FaceError: the crop is not square.
    """
    factor = size / _square_side(image, size)
    shift = 0.5 * factor - 0.5
    return resize_image(image, size, size), np.array([[factor, 0.0, shift], [0.0, factor, shift]])


def resize_label(label: Pixels, size: int) -> Pixels:
    """Labels (S, S) of an aligned crop at the model's input size, (size, size): the nearest pixel's.

    Raises:
        FaceError: the labels are not square.
    """
    _square_side(label, size)
    cv2 = import_opencv()
    # The plain INTER_NEAREST of OpenCV takes the pixel up and left of the nearest one.
    return cv2.resize(label, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


def _warp(image: Pixels, transform: ArrayLike, size: int, interpolation: str, outside: int) -> Pixels:
    _check_size(size)
    matrix = np.asarray(transform, dtype=np.float64)
    if matrix.shape != (2, 3):
        raise ValueError(f"transform must have shape (2, 3), got {matrix.shape}")
    cv2 = import_opencv()
    try:
        return cv2.warpAffine(
            np.ascontiguousarray(image),
            matrix,
            (size, size),
            flags=getattr(cv2, interpolation),
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(outside,) * 3,
        )
    except cv2.error as exc:  # before version 5 it takes no side of 32767 pixels or more
        height, width = image.shape[:2]
        raise FaceError(f"picture of {width}x{height} pixels is too large to be warped") from exc


def _landmarks(landmarks: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (68, 2):
        raise ValueError(f"landmarks must have shape (68, 2), got {points.shape}")
    return points


def _square_side(image: Pixels, size: int) -> int:
    _check_size(size)
    height, width = image.shape[:2]
    if height != width:
        raise FaceError(f"crop is {width}x{height}, not square")
    return height


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")


def import_opencv() -> ModuleType:
    """OpenCV, imported at first use so that a machine without its system libraries gets a plain sentence."""
    try:
        import cv2
    except ImportError as exc:
        raise RequestError(
            f"OpenCV cannot be imported ({exc}): install opencv-python and, on a bare Debian or Ubuntu "
            "machine, the system packages libgl1 and libglib2.0-0"
        ) from exc
    return cv2

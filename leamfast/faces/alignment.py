"""Face alignment: the similarity that carries five points onto the ArcFace template, and warping with it.

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

__all__ = [
    "ARCFACE_TEMPLATE",
    "FaceError",
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


def warp_image(image: Pixels, transform: ArrayLike, size: int) -> Pixels:
    """Crop (size, size, 3) of an image (H, W, 3), uint8: bilinear, 0 outside the image."""
    return _warp(image, transform, size, "INTER_LINEAR")


def warp_label(label: Pixels, transform: ArrayLike, size: int) -> Pixels:
    """Crop (size, size) of a label image (H, W), uint8: nearest pixel, 0 (background) outside."""
    return _warp(label, transform, size, "INTER_NEAREST")


def resize_image(image: Pixels, width: int, height: int) -> Pixels:
    """Image (H, W, 3) at (height, width, 3): pixel areas where it shrinks, bilinear where it grows."""
    if image.shape[:2] == (height, width):
        return image
    cv2 = _opencv()
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
    cv2 = _opencv()
    # The plain INTER_NEAREST of OpenCV takes the pixel up and left of the nearest one.
    return cv2.resize(label, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


def _warp(image: Pixels, transform: ArrayLike, size: int, interpolation: str) -> Pixels:
    _check_size(size)
    matrix = np.asarray(transform, dtype=np.float64)
    if matrix.shape != (2, 3):
        raise ValueError(f"transform must have shape (2, 3), got {matrix.shape}")
    cv2 = _opencv()
    return cv2.warpAffine(
        np.ascontiguousarray(image),
        matrix,
        (size, size),
        flags=getattr(cv2, interpolation),
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )


def _square_side(image: Pixels, size: int) -> int:
    _check_size(size)
    height, width = image.shape[:2]
    if height != width:
        raise FaceError(f"crop is {width}x{height}, not square")
    return height


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")


def _opencv() -> ModuleType:
    """OpenCV, imported at first use so that a machine without its system libraries gets a plain sentence."""
    try:
        import cv2
    except ImportError as exc:
        raise RequestError(
            f"OpenCV cannot be imported ({exc}): install opencv-python and, on a bare Debian or Ubuntu "
            "machine, the system packages libgl1 and libglib2.0-0"
        ) from exc
    return cv2

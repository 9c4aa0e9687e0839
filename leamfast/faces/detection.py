"""Face detectors: how a user names one, and the picture as each of them searches it.

`leamfast.faces.retinaface` and `leamfast.faces.landmarks` (dlib) hold the detectors, and
`leamfast.faces.selection` what they return and which face of a picture can be used.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from leamfast.errors import RequestError
from leamfast.faces.alignment import resize_image
from leamfast.faces.selection import Detector

__all__ = ["MAX_SIDE", "DetectorSpec", "parse_detector", "to_original", "to_small"]

MAX_SIDE = 640
"""Longest side at which faces are sought: on larger inputs RetinaFace finds boxes that are no faces."""


@dataclass(frozen=True)
class DetectorSpec:
    """A detector as the user named it: cheap to check, to record and to send to a worker.

    Attributes:
        name: kind of detector, `retinaface` or `dlib`.
        weights: file with its weights; of dlib the predictor of landmarks.
    """

    name: str
    weights: Path

    def load(self, device: torch.device | str = "cpu") -> Detector:
        """The detector itself, on a device; dlib always works on the CPU."""
        if self.name == "dlib":
            from leamfast.faces.landmarks import DlibDetector

            return DlibDetector(self.weights)
        from leamfast.faces.retinaface import RetinaFaceDetector

        return RetinaFaceDetector(self.weights, device)


def parse_detector(text: str) -> DetectorSpec:
    """Read a detector as written on the command line: `retinaface=FILE`, `dlib` or `dlib=FILE`.

    Raises:
        RequestError: another detector, or no file, or a file that does not exist; or `dlib` alone, and the
            package with its predictor is not installed.
    """
    name, equals, file = text.partition("=")
    if name not in ("retinaface", "dlib") or (not file and (equals or name != "dlib")):
        raise RequestError(
            "detector must be retinaface=FILE, with FILE its weights, or dlib, or dlib=FILE, with FILE its "
            f"predictor of 68 landmarks, got {text!r}"
        )
    if name == "dlib" and not file:
        from leamfast.faces.landmarks import installed_predictor

        return DetectorSpec(name, installed_predictor())
    weights = Path(os.path.expanduser(file))
    if not os.path.isfile(weights):
        raise RequestError(f"detector must name a file of weights, got {text!r}: there is no file {file}")
    return DetectorSpec(name, weights)


def to_small(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A picture as it is searched: shrunk to a longest side of `MAX_SIDE` where it is larger.

    Returns:
        The small picture, and the width and height of its pixels in pixels of the original, shape (2,).

    Raises:
        TypeError: image is not uint8.
        ValueError: image has another shape than (H, W, 3).
    """
    if image.dtype != np.uint8:
        raise TypeError(f"image must be uint8, got {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must have shape (H, W, 3), got {image.shape}")
    height, width = image.shape[:2]
    shrink = min(1.0, MAX_SIDE / max(height, width))
    small = resize_image(image, max(1, round(width * shrink)), max(1, round(height * shrink)))
    return np.ascontiguousarray(small), np.array([width / small.shape[1], height / small.shape[0]])


def to_original(points: NDArray, scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """Coordinates (N, 2) in the shrunk picture to those in the original: pixel centres are at integers."""
    return ((points.astype(np.float64) + 0.5) * scale - 0.5).astype(np.float32)

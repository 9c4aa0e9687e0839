"""68 landmarks of a face by dlib: its frontal face detector (HOG) and its cascade of regression trees.

dlib indexes pixels by whole numbers (x the column, y the row) and both of its parts place their results in
those numbers, rounded, so that pixel centres are at integers as everywhere here. (Landmarks of 31 photos and
of their mirror images sum to the width less one, up to 0.05 +- 0.07 pixels.)

The detector searches windows of 80 pixels and more. Enlarging the picture once would find faces of half that
size at four times the cost; all 61 photos of the tests are found without it, and so it is not done.

Reference: V. Kazemi, J. Sullivan, One millisecond face alignment with an ensemble of regression trees,
CVPR 2014. The predictor was trained on iBUG 300-W, whose licence excludes commercial use.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from leamfast.errors import RequestError
from leamfast.faces.alignment import five_points
from leamfast.faces.detection import to_original, to_small
from leamfast.faces.selection import Detection, Scores, faces_or_candidate

__all__ = ["DLIB_SCORES", "DlibDetector", "installed_predictor"]

PREDICTOR = "shape_predictor_68_face_landmarks.dat"
PREDICTOR_BYTES = 99_693_937
PREDICTOR_SHA256 = "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"

DLIB_SCORES = Scores(candidate=-0.5, threshold=0.0, upright=1.0)
"""Scores are distances from the plane of a support vector machine. The 61 photos of the tests score 0.35 and
more, 2 of them below `upright`; turned by 180 degrees 0.81 at most, and every one scores higher upright."""

INSTALL = "install it with `pip install 'leamfast[dlib]'`"


class DlibDetector:
    """dlib's frontal face detector with 68 landmarks for every face; it works on the CPU.

    Args:
        predictor: file of the landmark predictor, published as `shape_predictor_68_face_landmarks.dat`;
            None takes that of the installed package face_recognition_models.

    Raises:
        RequestError: dlib is not installed, or the file is missing or another one.
    """

    def __init__(self, predictor: Path | None = None) -> None:
        self._dlib = _import_dlib()
        file = installed_predictor() if predictor is None else predictor
        _check_predictor(file)
        self._detector = self._dlib.get_frontal_face_detector()
        try:
            self._predictor = self._dlib.shape_predictor(str(file))
        except Exception as exc:
            # What dlib throws depends on its version: RuntimeError, MemoryError, its own serialization_error.
            raise RequestError(
                f"detector dlib must have a predictor that dlib can read, got {file}: {exc}"
            ) from exc
        try:
            self._detector.run(np.zeros((1, 1, 3), np.uint8), 0)
        except RuntimeError as exc:
            # Versions before 19.24.6 refuse every array of NumPy 2.
            raise RequestError(
                f"detector dlib needs a dlib that takes arrays of NumPy {np.__version__}, "
                f"got dlib {self._dlib.__version__}: {INSTALL}"
            ) from exc

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Faces in a picture, best score first.

        Args:
            image: picture, shape (H, W, 3), uint8, RGB. It is shrunk to a longest side of `MAX_SIDE` where
                it is larger, and never enlarged.

        Returns:
            The faces that score above 0, with landmarks; where there is none, the best of what scores above
            -0.5, which `one_face` refuses with its score; otherwise an empty list.

        Raises:
            TypeError: image is not uint8.
            ValueError: image has another shape.
        """
        small, scale = to_small(image)
        boxes, scores, _ = self._detector.run(small, 0, DLIB_SCORES.candidate)
        found = []
        for box, score in sorted(zip(boxes, scores, strict=True), key=lambda pair: -pair[1]):
            parts = self._predictor(small, box).parts()
            landmarks = to_original(np.array([(point.x, point.y) for point in parts]), scale)
            # dlib's rectangles hold their right and bottom pixels.
            edges = np.array([[box.left() - 0.5, box.top() - 0.5], [box.right() + 0.5, box.bottom() + 0.5]])
            found.append(
                Detection(
                    box=to_original(edges, scale).reshape(4),
                    points=five_points(landmarks).astype(np.float32),
                    score=float(score),
                    landmarks=landmarks,
                    scores=DLIB_SCORES,
                )
            )
        return faces_or_candidate(found)

    def detect_many(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Faces in each of several pictures, one after the other: dlib has no batches."""
        return [self.detect(image) for image in images]


def installed_predictor() -> Path:
    """File of the predictor in the package face_recognition_models, which is found but not imported.

    (Its `__init__` imports pkg_resources, which setuptools no longer brings.)

    Raises:
        RequestError: the package or its file is missing.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder) / "models" / PREDICTOR
        if file.is_file():
            return file
    raise RequestError(
        f"detector dlib needs the predictor {PREDICTOR}, which the package face_recognition_models carries "
        f"and which is not there: {INSTALL}, or name the file, dlib=FILE"
    )


def _check_predictor(file: Path) -> None:
    """Refuse any file but the published one: dlib follows the indices in it without checking them."""
    must = f"detector dlib must have the published predictor {PREDICTOR}, got {file}"
    if not file.is_file():
        raise RequestError(f"{must}: there is no such file")
    try:
        size = file.stat().st_size
        if size != PREDICTOR_BYTES:
            raise RequestError(f"{must}: it has {size} bytes where that one has {PREDICTOR_BYTES}")
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise RequestError(f"{must}: {(exc.strerror or 'it cannot be read').lower()}") from exc
    if sha256 != PREDICTOR_SHA256:
        raise RequestError(f"{must}: its SHA-256 is {sha256}, not {PREDICTOR_SHA256}")


def _import_dlib() -> ModuleType:
    try:
        import dlib
    except ImportError as exc:
        raise RequestError(f"detector dlib cannot import the package dlib ({exc}): {INSTALL}") from exc
    return dlib

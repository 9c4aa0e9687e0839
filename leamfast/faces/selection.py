"""What detectors find, and which face of a picture can be used: every reason against one has its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leamfast.faces.alignment import FaceError, similarity_transform

__all__ = [
    "FACES",
    "MIN_EYE_DISTANCE",
    "RETINAFACE_SCORES",
    "THRESHOLD",
    "Detection",
    "Detector",
    "Scores",
    "check_face",
    "check_upright",
    "faces_or_candidate",
    "find_face",
    "find_faces",
    "one_face",
]

THRESHOLD = 0.8
"""Score that RetinaFace must exceed."""

FACES = ("one", "largest")
"""What is done with a picture of several faces: it is left out, or its largest face is used."""

MIN_EYE_DISTANCE = 20.0
"""Least distance of the eyes in the picture as given, in pixels: in a crop of 112 they are 35 apart."""

MAX_BOX_SIDE = 135.0
"""Largest side of a face's box, carried into an aligned crop of 112 (geometric mean of width and height).

On an upside-down face RetinaFace often places five small points that look upright. On the 61 photos of the
tests the side is 88..101 (dlib: 76..108), on the upside-down one 180. Of the photos turned by 180 degrees in
which RetinaFace finds a face, this and eyes below the mouth tell 33 of 55; `find_face` tells all.
"""

OVERLAP = 0.2
"""Least overlap (intersection over union) of the boxes of one face in a picture and in the same, turned."""


@dataclass(frozen=True)
class Scores:
    """What the scores of a detector say.

    Attributes:
        candidate: least score of what is reported, as the reason, where there is no face.
        threshold: score that a face must exceed.
        upright: score that faces which are upside down do not reach; below it `find_face` searches the
            turned picture as well.
    """

    candidate: float
    threshold: float
    upright: float


RETINAFACE_SCORES = Scores(candidate=0.5, threshold=THRESHOLD, upright=0.998)
"""The 61 photos of the tests score 0.9940 and more, 7 of them below `upright`; turned by 180 degrees, 0.9970
at most. Every one of them scores higher upright than turned (where found at all, by 1.6 logits and more)."""


@dataclass(frozen=True)
class Detection:
    """One face; coordinates are those of the picture as given, with pixel centres at integers.

    Attributes:
        box: left, top, right, bottom, shape (4,), float32; may reach beyond the picture.
        points: image-left eye, image-right eye, nose, image-left and image-right mouth corner,
            shape (5, 2) as (x, y), float32. (On a face that is upside down they are not to be trusted.)
        score: confidence, on the scale of `scores`.
        landmarks: the 68 points of 300-W, shape (68, 2) as (x, y), float32, where the detector has them.
        scores: what the score says.
    """

    box: NDArray[np.float32]
    points: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32] | None = None
    scores: Scores = RETINAFACE_SCORES


class Detector(Protocol):
    """What finds faces."""

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Faces in a picture (H, W, 3), uint8, RGB, best score first.

        Those that score above their threshold; where there is none, the best candidate below it, which
        `one_face` refuses with its score; otherwise an empty list.
        """
        ...

    def detect_many(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """What `detect` finds in each of several pictures, bit for bit."""
        ...


def find_face(detector: Detector, image: NDArray[np.uint8], faces: str = "one") -> Detection:
    """The face of a picture that can be used: `one_face`, and `check_upright` where its score asks for it.

    Args:
        detector: finds the faces.
        image: picture, shape (H, W, 3), uint8, RGB.
        faces: `one` or `largest`.

    Raises:
        FaceError: there is no such face; the message is the reason, with its numbers.
    """
    face = one_face(detector.detect(image), faces)
    if face.score < face.scores.upright:
        check_upright(face, detector.detect(np.ascontiguousarray(image[::-1, ::-1])), image.shape)
    return face


def find_faces(
    detector: Detector, images: Sequence[NDArray[np.uint8]], faces: str = "one"
) -> list[Detection | FaceError]:
    """What `find_face` returns or raises for each of several pictures, bit for bit.

    All are searched together, and then all those together that must be searched turned.
    """
    found: list[Detection | FaceError] = []
    doubtful = []
    for number, detections in enumerate(detector.detect_many(images)):
        try:
            face = one_face(detections, faces)
        except FaceError as error:
            found.append(error)
            continue
        found.append(face)
        if face.score < face.scores.upright:
            doubtful.append((number, face))
    if doubtful:
        turned = [np.ascontiguousarray(images[number][::-1, ::-1]) for number, _ in doubtful]
        for (number, face), detections in zip(doubtful, detector.detect_many(turned), strict=True):
            try:
                check_upright(face, detections, images[number].shape)
            except FaceError as error:
                found[number] = error
    return found


def one_face(detections: Sequence[Detection], faces: str = "one") -> Detection:
    """The face of a picture that holds exactly one, or its largest, if `check_face` has nothing against it.

    Args:
        detections: what a detector found in the picture.
        faces: `one`: several faces are a reason to leave the picture out; `largest`: the one with the
            largest box is taken.

    Raises:
        FaceError: there is none, or more than one, or it cannot be used.
        ValueError: faces is neither `one` nor `largest`.
    """
    if faces not in FACES:
        raise ValueError(f"faces must be one of {', '.join(FACES)}, got {faces!r}")
    if not detections:
        raise FaceError("no face found")
    certain = [face for face in detections if face.score > face.scores.threshold]
    if not certain:
        best = max(detections, key=lambda face: face.score)
        raise FaceError(
            f"no face found: the best candidate scores {best.score:.2f}, "
            f"more than {best.scores.threshold:g} is needed"
        )
    if len(certain) > 1 and faces == "one":
        raise FaceError(f"{len(certain)} faces found, exactly one is needed")
    face = max(certain, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))
    check_face(face)
    return face


def check_face(face: Detection) -> None:
    """See from its points that a face is large enough and not upside down.

    Raises:
        FaceError: the eyes are less than `MIN_EYE_DISTANCE` apart, or lie below the mouth, or the points do
            not fit the box (`MAX_BOX_SIDE`); or the points are no face.
    """
    eyes, mouth = face.points[:2].astype(np.float64), face.points[3:].astype(np.float64)
    transform = similarity_transform(face.points, 112)
    if eyes[:, 1].mean() > mouth[:, 1].mean():
        raise FaceError("face is upside down: its eyes are below its mouth")
    box = np.maximum(face.box[2:] - face.box[:2], 0).astype(np.float64)
    side = float(np.sqrt(box.prod()) * np.hypot(transform[0, 0], transform[1, 0]))
    if side > MAX_BOX_SIDE:
        raise FaceError(
            f"face is upside down or not whole: in a crop of 112 pixels its box has a side of {side:.0f}, "
            f"at most {MAX_BOX_SIDE:g} is allowed"
        )
    distance = float(np.linalg.norm(eyes[1] - eyes[0]))
    if distance < MIN_EYE_DISTANCE:
        raise FaceError(
            f"face is too small: its eyes are {distance:.1f} pixels apart, "
            f"at least {MIN_EYE_DISTANCE:g} are needed"
        )


def check_upright(face: Detection, turned: Sequence[Detection], shape: Sequence[int]) -> None:
    """See from the picture turned by 180 degrees that a face is not upside down.

    Points of an upside-down face cannot be trusted, but detectors score it higher when it is upright.

    Args:
        face: the face in the picture as given.
        turned: what the same detector found in the turned picture.
        shape: height and width of the picture.

    Raises:
        FaceError: the same face scores higher in the turned picture.
    """
    height, width = shape[:2]
    corner = np.array([width, height, width, height]) - 1
    for other in turned:
        box = (corner - other.box)[[2, 3, 0, 1]]
        if other.score > face.score and _overlap(face.box, box) > OVERLAP:
            raise FaceError(
                f"face is upside down: it scores {other.score:.4f} in the picture turned by 180 degrees, "
                f"{face.score:.4f} as it is"
            )


def faces_or_candidate(found: list[Detection]) -> list[Detection]:
    """Of detections, best first, those above their threshold; where there is none, the best one."""
    return [face for face in found if face.score > face.scores.threshold] or found[:1]


def _overlap(a: NDArray, b: NDArray) -> float:
    """Intersection over union of two boxes."""
    common = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common
    return float(common / union) if union > 0 else 0.0

"""Regions as polygons between the 68 landmarks of a face, drawn on the original photo.

    face         hull of the jaw (0..16) and the brows (17..26); everything else is drawn over it
    rb, lb       17..21, 22..26 and the same points, lower by 0.12 of the distance of the eyes
    re, le       36..41, 42..47
    nose         27, 31..35: from the bridge to the nostrils, so that its wings are cut narrow
    imouth       60..67, below the lips: of a closed mouth nothing is left
    ulip, llip   between the outer (48..59) and the inner (60..67) outline

Landmarks of brows lie on their upper edge: on 31 photos of the tests the darkest line is 0.06 to 0.08 below
them and much of the darkness is gone at 0.13. 36..41 lie left in the picture: the person's right eye.

Nothing is known of what the landmarks leave out. Outside the hull every pixel is `UNKNOWN`, the forehead
above the brows too; glasses, or hair over a brow, count as what they cover.

Coordinates are rounded to 1/16 of a pixel. OpenCV fills every pixel whose centre lies inside and those that
the outline crosses, so that regions are larger than their polygon by half a pixel along it; what is drawn
later wins.
"""

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from leamfast.errors import RequestError
from leamfast.faces.alignment import FaceError, import_opencv
from leamfast.faces.parse_names import UNKNOWN
from leamfast.faces.regions import region_index
from leamfast.faces.selection import Detection

__all__ = ["PolygonParser", "draw_polygons", "polygons"]

BROW_HEIGHT = 0.12
SHIFT = 4  # bits behind the point: OpenCV takes whole numbers of 1/16 pixel
FARTHEST = 30_000.0  # pixels: OpenCV's whole numbers end far beyond


class PolygonParser:
    """The parser `polygons`: it needs the landmarks that detector dlib finds.

    Attributes:
        known: the 9 regions that landmarks can tell.
    """

    known: tuple[str, ...] = ("face", "rb", "lb", "re", "le", "nose", "imouth", "llip", "ulip")

    def parse(self, photo: NDArray[np.uint8], face: Detection) -> NDArray[np.uint8]:
        """Labels (H, W), uint8, of a photo (H, W, 3): indices of `REGIONS`, `UNKNOWN` outside the hull.

        Raises:
            RequestError: the detector gave no landmarks.
            FaceError: they are not finite or far outside the photo.
        """
        if face.landmarks is None:
            raise RequestError(
                "parser polygons needs 68 landmarks, and the detector gives none: use detector dlib"
            )
        height, width = photo.shape[:2]
        return draw_polygons(face.landmarks, height, width)


def draw_polygons(landmarks: NDArray, height: int, width: int) -> NDArray[np.uint8]:
    """Labels (height, width), uint8, of landmarks (68, 2) as (x, y), pixel centres at integers.

    Raises:
        FaceError: landmarks are not finite or far outside the photo.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if not np.isfinite(points).all():
        raise FaceError("face landmarks are not finite")
    if np.abs(points).max() > FARTHEST:
        raise FaceError(f"face landmarks lie more than {FARTHEST:.0f} pixels away")
    cv2 = import_opencv()
    labels = np.full((height, width), UNKNOWN, np.uint8)
    for region, polygon in polygons(points, cv2):
        corners = np.round(polygon * (1 << SHIFT)).astype(np.int32)
        cv2.fillPoly(labels, [corners], region_index(region), lineType=cv2.LINE_8, shift=SHIFT)
    return labels


def polygons(points: NDArray[np.float64], cv2: ModuleType) -> list[tuple[str, NDArray[np.float64]]]:
    """Regions and corners (n, 2) of their polygons in the order in which they are drawn."""
    right_eye, left_eye = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    across = left_eye - right_eye
    lower = BROW_HEIGHT * np.array([-across[1], across[0]])  # at right angles, towards the mouth
    if lower @ (points[48:68].mean(axis=0) - (left_eye + right_eye) / 2) < 0:
        lower = -lower
    hull = cv2.convexHull(points[:27].astype(np.float32))[:, 0].astype(np.float64)
    drawn = [("face", hull)]
    for region, brow in (("rb", points[17:22]), ("lb", points[22:27])):
        drawn.append((region, np.concatenate([brow, (brow + lower)[::-1]])))
    return [
        *drawn,
        ("re", points[36:42]),
        ("le", points[42:48]),
        ("nose", points[[27, 31, 32, 33, 34, 35]]),
        ("imouth", points[60:68]),
        ("ulip", points[[48, 49, 50, 51, 52, 53, 54, 64, 63, 62, 61, 60]]),
        ("llip", points[[54, 55, 56, 57, 58, 59, 48, 60, 67, 66, 65, 64]]),
    ]

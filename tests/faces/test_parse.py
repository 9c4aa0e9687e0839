"""The parsers' specification, and polygons from landmarks."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from leamfast.datasets.decoding import read_image
from leamfast.errors import RequestError
from leamfast.faces.alignment import MIRRORED, FaceError
from leamfast.faces.landmarks import DlibDetector, installed_predictor
from leamfast.faces.parse import PARSERS, UNKNOWN, ParserSpec, parse_parser
from leamfast.faces.parse_polygons import PolygonParser, draw_polygons
from leamfast.faces.regions import REGIONS, region_index
from leamfast.faces.selection import Detection, one_face
from leamfast.store.arrays import NO_LABEL

ROOT = Path(__file__).resolve().parents[2]
SWAPPED = np.arange(256)
for a, b in (("rb", "lb"), ("re", "le")):
    SWAPPED[[region_index(a), region_index(b)]] = region_index(b), region_index(a)


def landmarks() -> np.ndarray:
    """A symmetric face, 200 wide, about x = 150: outline of an ellipse and the parts inside."""
    points = np.zeros((68, 2))
    turn = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([150 + 100 * np.cos(turn), 150 + 130 * np.sin(turn)], axis=1)
    points[17:22] = [(75, 122), (88, 114), (102, 112), (116, 115), (130, 120)]
    points[27:31] = [(150, 140), (150, 160), (150, 180), (150, 200)]
    points[31:34] = [(130, 210), (140, 214), (150, 216)]
    points[36:42] = [(85, 150), (97, 142), (113, 142), (125, 150), (113, 157), (97, 157)]
    points[48:52] = [(115, 240), (128, 232), (141, 228), (150, 230)]
    points[57:60] = [(150, 262), (138, 260), (126, 252)]
    points[60:63] = [(120, 241), (137, 240), (150, 240)]
    points[66:68] = [(150, 246), (137, 246)]
    for j, partner in enumerate(MIRRORED):
        if (points[j] == 0).all():
            points[j] = (300 - points[partner, 0], points[partner, 1])
    return points


# The specification


def test_a_specification_is_read_without_loading_anything(tmp_path: Path) -> None:
    file = tmp_path / "a=b.pt"
    file.touch()
    assert parse_parser(f"farl={file}") == ParserSpec("farl", file)
    assert parse_parser(f"bisenet={file}") == ParserSpec("bisenet", file)
    for name in ("polygons", "labels", "none"):
        assert parse_parser(name) == ParserSpec(name)
    assert parse_parser(f"masks={tmp_path}") == ParserSpec("masks", tmp_path)
    assert [name for name in PARSERS if ParserSpec(name).of_faces] == ["farl", "bisenet", "polygons"]
    with pytest.raises(ValueError, match="parser labels has nothing to load"):
        ParserSpec("labels").load()
    assert isinstance(ParserSpec("polygons").load(), PolygonParser)
    assert UNKNOWN == NO_LABEL


@pytest.mark.parametrize(
    "text", ["", "farl", "farl=", "bisenet", "polygons=", "polygons=a", "labels=a", "masks", "x"]
)
def test_other_specifications_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="parser must be farl=FILE or bisenet=FILE") as caught:
        parse_parser(text)
    assert repr(text) in str(caught.value)


def test_absent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no file /absent.pt"):
        parse_parser("farl=/absent.pt")
    with pytest.raises(RequestError, match="there is no file"):
        parse_parser(f"bisenet={tmp_path}")
    with pytest.raises(RequestError, match="there is no folder /absent"):
        parse_parser("masks=/absent")
    with pytest.raises(RequestError, match="parser farl needs its weights: farl=FILE"):
        ParserSpec("farl").load()


def test_importing_does_not_import_facer() -> None:
    code = (
        "import sys, leamfast.faces.parse, leamfast.faces.parse_farl, leamfast.faces.parse_polygons\n"
        "assert not {'facer', 'cv2', 'dlib', 'timm', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# Polygons


def test_pixels_of_a_face_worked_by_hand() -> None:
    labels = draw_polygons(landmarks(), 300, 300)
    assert (labels.shape, labels.dtype) == ((300, 300), np.uint8)
    expected = {
        (105, 150): "re",  # left in the picture: the person's right
        (195, 150): "le",
        (102, 116): "rb",
        (198, 116): "lb",
        (150, 180): "nose",
        (150, 235): "ulip",
        (150, 243): "imouth",
        (150, 254): "llip",
        (150, 130): "face",
        (80, 220): "face",
    }
    assert {point: REGIONS[labels[point[1], point[0]]] for point in expected} == expected
    assert labels[100, 150] == labels[20, 20] == labels[295, 150] == UNKNOWN
    found = {REGIONS[value] for value in np.unique(labels) if value != UNKNOWN}
    assert found == set(PolygonParser.known)
    # 40 across, 8 and 7 high over 16: 16 x 15 + 2 x 12 x 7.5, and half a pixel along the outline of 87.
    assert np.sum(labels == region_index("re")) == pytest.approx(420 + 43, abs=20)


def test_a_closed_mouth_has_no_inside() -> None:
    points = landmarks()
    points[60:68, 1] = 241
    labels = draw_polygons(points, 300, 300)
    assert region_index("imouth") not in labels
    assert region_index("ulip") in labels


def test_a_mirrored_face_swaps_left_and_right() -> None:
    points = landmarks() @ np.array([[0.98, 0.2], [-0.2, 0.98]]) + (60, 3.3)
    labels = draw_polygons(points, 320, 331)
    other = points[MIRRORED]
    other[:, 0] = 330 - other[:, 0]
    mirrored = draw_polygons(other, 320, 331)[:, ::-1]
    assert np.mean(SWAPPED[mirrored] != labels) < 2e-3
    assert np.mean(mirrored != labels) > 0.01


def test_faces_reach_beyond_the_photo() -> None:
    whole = draw_polygons(landmarks(), 300, 300)
    part = draw_polygons(landmarks() - (100, 120), 60, 90)
    # OpenCV rounds anew where an outline leaves the picture.
    assert np.mean(part != whole[120:180, 100:190]) < 0.01
    assert (draw_polygons(landmarks() + 1000, 50, 50) == UNKNOWN).all()


def test_landmarks_that_cannot_be() -> None:
    points = landmarks()
    photo = np.zeros((300, 300, 3), np.uint8)
    five = np.zeros((5, 2), np.float32)
    with pytest.raises(RequestError, match="needs 68 landmarks, and the detector gives none: use"):
        PolygonParser().parse(photo, Detection(np.zeros(4, np.float32), five, 1.0))
    with pytest.raises(FaceError, match="not finite"):
        draw_polygons(points * np.nan, 300, 300)
    with pytest.raises(FaceError, match="more than 30000 pixels away"):
        draw_polygons(points + 1e9, 300, 300)


@pytest.fixture(scope="module")
def dlib_detector() -> DlibDetector:
    for package in ("dlib", "face_recognition_models"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'leamfast[dlib]'")
    return DlibDetector(installed_predictor())


def test_real_photos_and_their_mirror_images(dlib_detector: DlibDetector, shared_data: Path) -> None:
    parser = PolygonParser()
    for file in sorted(shared_data.glob("photos/id0[0-3]/img1*.jpg"))[:4]:
        photo = read_image(file).pixels
        turned = np.ascontiguousarray(photo[:, ::-1])
        found, other = one_face(dlib_detector.detect(photo)), one_face(dlib_detector.detect(turned))
        labels, swapped = parser.parse(photo, found), SWAPPED[parser.parse(turned, other)[:, ::-1]]
        assert labels.shape == photo.shape[:2]
        assert {REGIONS[value] for value in np.unique(labels) if value != UNKNOWN} <= set(parser.known)
        columns = np.arange(photo.shape[1])
        right, left = (np.mean(np.where(labels == region_index(name))[1]) for name in ("re", "le"))
        assert right < left < columns[-1]
        for name in ("rb", "lb", "re", "le", "nose", "face"):
            a, b = labels == region_index(name), swapped == region_index(name)
            assert (a & b).sum() / (a | b).sum() > 0.6, (file, name)

"""dlib: its predictor file, its coordinates, and how it agrees with RetinaFace on the test photos."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from leamfast.datasets.decoding import read_image
from leamfast.errors import RequestError
from leamfast.faces import landmarks
from leamfast.faces.alignment import (
    ARCFACE_TEMPLATE,
    MIRRORED,
    FaceError,
    paper_transform,
    resize_image,
    similarity_transform,
    warp_image,
)
from leamfast.faces.detection import DetectorSpec, parse_detector
from leamfast.faces.landmarks import DLIB_SCORES, DlibDetector, installed_predictor
from leamfast.faces.selection import Detection, find_face, one_face

ROOT = Path(__file__).resolve().parents[2]
PREDICTOR = "shape_predictor_68_face_landmarks.dat"


@pytest.fixture(scope="module")
def predictor() -> Path:
    for package in ("dlib", "face_recognition_models"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'leamfast[dlib]'")
    return installed_predictor()


@pytest.fixture(scope="module")
def detector(predictor: Path) -> DlibDetector:
    return DlibDetector(predictor)


@pytest.fixture(scope="module")
def photo(shared_data: Path) -> np.ndarray:
    return read_image(shared_data / "photos" / "id00" / "img1.jpg").pixels


@pytest.fixture(scope="module")
def photos(detector: DlibDetector, shared_data: Path) -> dict[str, list[Detection]]:
    """What dlib finds in each of the photos."""
    files = sorted(shared_data.glob("photos/*/*.jpg"))
    return {str(file): detector.detect(read_image(file).pixels) for file in files}


@pytest.fixture(scope="module")
def retinaface(shared_data: Path, photos: dict) -> Iterator[dict[str, Detection]]:
    """What RetinaFace finds in each of the photos."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = parse_detector(f"retinaface={shared_data / 'mobilenet0.25_Final.pth'}").load()
    yield {name: one_face(found.detect(read_image(Path(name)).pixels)) for name in photos}
    torch.set_num_threads(threads)


class _Point(SimpleNamespace):
    """A point as dlib returns it."""


class _Box(SimpleNamespace):
    """A rectangle as dlib returns it."""


def fake_dlib(
    found: list[tuple[_Box, float]], points: list[_Point], seen: list[np.ndarray]
) -> SimpleNamespace:
    """A module that finds the given faces, each with the given points, and notes the pictures it gets."""

    def run(image: np.ndarray, upsample: int, adjust: float = 0.0) -> tuple:
        assert upsample == 0
        seen.append(image)
        return [box for box, _ in found], [score for _, score in found], [0] * len(found)

    return SimpleNamespace(
        __version__="0",
        get_frontal_face_detector=lambda: SimpleNamespace(run=run),
        shape_predictor=lambda file: lambda image, box: SimpleNamespace(parts=lambda: points),
    )


def box(left: int, top: int, right: int, bottom: int) -> _Box:
    return _Box(left=lambda: left, top=lambda: top, right=lambda: right, bottom=lambda: bottom)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[DlibDetector, list]]:
    """A detector on a dlib that is not there."""

    def made(found: list[tuple[_Box, float]]) -> tuple[DlibDetector, list]:
        seen: list[np.ndarray] = []
        points = [_Point(x=j, y=2 * j) for j in range(68)]
        monkeypatch.setitem(sys.modules, "dlib", fake_dlib(found, points, seen))
        monkeypatch.setattr(landmarks, "_check_predictor", lambda file: None)
        detector = DlibDetector(tmp_path / "a.dat")
        seen.clear()
        return detector, seen

    return made


# The predictor file


def test_the_predictor_is_found_without_importing_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "face_recognition_models" / "models" / PREDICTOR
    file.parent.mkdir(parents=True)
    (tmp_path / "face_recognition_models" / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "face_recognition_models", raising=False)
    with pytest.raises(
        RequestError, match=r"needs the predictor .*pip install 'leamfast\[dlib\]'.*dlib=FILE"
    ):
        parse_detector("dlib")
    file.touch()
    assert parse_detector("dlib") == DetectorSpec("dlib", file)
    assert "face_recognition_models" not in sys.modules


def test_a_machine_without_the_packages_gets_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "face_recognition_models", None)
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(RequestError, match=r"face_recognition_models .*pip install 'leamfast\[dlib\]'"):
        installed_predictor()
    with pytest.raises(RequestError, match=r"cannot import the package dlib.*pip install 'leamfast\[dlib\]'"):
        DlibDetector(tmp_path / "a.dat")


def test_other_files_never_reach_dlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded: list[str] = []
    monkeypatch.setitem(sys.modules, "dlib", SimpleNamespace(shape_predictor=loaded.append))
    file = tmp_path / "a.dat"
    for content in (b"", b"<!DOCTYPE html><html>404</html>", b"\x01" * 100):
        file.write_bytes(content)
        with pytest.raises(
            RequestError, match=rf"a\.dat: it has {len(content)} bytes where that one has 99693937"
        ):
            DlibDetector(file)
    with file.open("wb") as stream:
        stream.truncate(landmarks.PREDICTOR_BYTES)
    with pytest.raises(RequestError, match=r"a\.dat: its SHA-256 is [0-9a-f]{64}, not fbdc2cb8"):
        DlibDetector(file)
    for absent in (tmp_path, tmp_path / "absent.dat"):
        with pytest.raises(RequestError, match="there is no such file"):
            DlibDetector(absent)
    assert loaded == []


def test_errors_of_dlib_become_a_sentence(
    make: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make([])

    def fails(*_: object) -> None:
        raise RuntimeError("Unexpected version found while deserializing dlib::shape_predictor.")

    monkeypatch.setattr(sys.modules["dlib"], "shape_predictor", fails)
    with pytest.raises(RequestError, match=r"that dlib can read, got .*a\.dat: Unexpected version found"):
        DlibDetector(tmp_path / "a.dat")
    make([])
    monkeypatch.setattr(sys.modules["dlib"], "get_frontal_face_detector", lambda: SimpleNamespace(run=fails))
    with pytest.raises(RequestError, match=r"takes arrays of NumPy .*got dlib 0: install it with"):
        DlibDetector(tmp_path / "a.dat")


def test_damaged_predictors_are_refused_by_dlib_too(
    predictor: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(landmarks, "_check_predictor", lambda file: None)
    with predictor.open("rb") as stream:
        start = stream.read(100_000)
    for content in (b"", b"<!DOCTYPE html>", start):
        (tmp_path / "a.dat").write_bytes(content)
        with pytest.raises(RequestError, match="must have a predictor that dlib can read"):
            DlibDetector(tmp_path / "a.dat")


def test_importing_does_not_import_dlib() -> None:
    code = (
        "import sys, leamfast.faces.landmarks\n"
        "assert not {'dlib', 'facer', 'cv2', 'face_recognition_models', 'pkg_resources'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_loading_prints_and_warns_nothing(predictor: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from leamfast.faces.landmarks import DlibDetector\n"
        "DlibDetector(Path(sys.argv[1])); assert 'face_recognition_models' not in sys.modules"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(predictor)]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


# Coordinates and scores


def test_coordinates_are_those_of_the_picture_as_given(make: Callable) -> None:
    detector, seen = make([(box(10, 20, 29, 49), 2.0)])
    face = detector.detect(np.zeros((480, 640, 3), np.uint8))[0]
    np.testing.assert_array_equal(face.landmarks[:, 0], np.arange(68))
    np.testing.assert_array_equal(face.landmarks[:, 1], 2 * np.arange(68))
    # The right and bottom pixels of dlib's rectangles lie inside: this one is 20 wide and 30 high.
    np.testing.assert_array_equal(face.box, [9.5, 19.5, 29.5, 49.5])
    np.testing.assert_array_equal(face.points[:, 0], [38.5, 44.5, 30, 48, 54])
    face = detector.detect(np.zeros((1280, 960, 3), np.uint8))[0]
    # Pixel 10 of the shrunk picture covers pixels 20 and 21, so that its centre lies at 20.5.
    assert face.landmarks[10].tolist() == [20.5, 40.5]
    np.testing.assert_array_equal(face.box, [19.5, 39.5, 59.5, 99.5])
    assert face.landmarks.dtype == face.points.dtype == face.box.dtype == np.float32
    assert (face.landmarks.shape, face.points.shape) == ((68, 2), (5, 2))
    assert [image.shape for image in seen] == [(480, 640, 3), (640, 480, 3)]


def test_faces_come_best_first_and_candidates_only_without_a_face(make: Callable) -> None:
    boxes = [box(0, 0, side, side) for side in (80, 90, 100, 110)]
    scores = [0.5, 2.5, -0.3, 1.5]
    picture = np.zeros((480, 640, 3), np.uint8)
    found = make(list(zip(boxes, scores, strict=True)))[0].detect(picture)
    assert [face.score for face in found] == [2.5, 1.5, 0.5]
    assert [face.box[2] for face in found] == [90.5, 110.5, 80.5]
    found = make([(boxes[0], -0.4), (boxes[1], -0.1)])[0].detect(picture)
    assert [face.score for face in found] == [-0.1]
    with pytest.raises(FaceError) as caught:
        one_face(found)
    assert str(caught.value) == "no face found: the best candidate scores -0.10, more than 0 is needed"
    assert make([])[0].detect(picture) == []


def test_wrong_pictures_are_refused(make: Callable) -> None:
    detector, _ = make([])
    with pytest.raises(TypeError, match="image must be uint8, got float32"):
        detector.detect(np.zeros((8, 8, 3), np.float32))
    for shape in ((8, 8), (8, 8, 4), (0, 8, 3)):
        with pytest.raises(ValueError, match=r"image must have shape \(H, W, 3\), got"):
            detector.detect(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 2000, 3), (5, 640, 3), (80, 80, 3)])
def test_pictures_of_any_shape_are_searched(shape: tuple[int, ...], detector: DlibDetector) -> None:
    assert detector.detect(np.zeros(shape, np.uint8)) == []


# Photos


def test_every_photo_holds_one_face(photos: dict[str, list[Detection]]) -> None:
    assert len(photos) == 61
    for name, found in photos.items():
        face = one_face(found)
        assert face.score > DLIB_SCORES.threshold, name
        transform = similarity_transform(face.points, 112)
        aligned = face.points @ transform[:, :2].T + transform[:, 2]
        assert np.abs(aligned - ARCFACE_TEMPLATE).max() < 12, name


def test_alignments_agree_with_those_by_retinaface(
    photos: dict[str, list[Detection]], retinaface: dict[str, Detection]
) -> None:
    """Where the template's points of one crop land in the other."""
    distances = []
    for name, found in photos.items():
        a = similarity_transform(retinaface[name].points, 112)
        b = similarity_transform(one_face(found).points, 112)
        source = (ARCFACE_TEMPLATE - a[:, 2]) @ np.linalg.inv(a[:, :2]).T
        distances.append(np.linalg.norm(source @ b[:, :2].T + b[:, 2] - ARCFACE_TEMPLATE, axis=1))
    assert np.median(distances) < 1.5
    assert np.median(distances, axis=1).max() < 3
    assert np.max(distances) < 5


def test_alignments_serve_recognition(photos: dict[str, list[Detection]], shared_data: Path) -> None:
    from leamfast import load_model

    model = load_model(f"mobilefacenet={shared_data / 'mobilefacenet.pt'}")
    crops = np.stack(
        [
            warp_image(read_image(Path(name)).pixels, similarity_transform(found[0].points, 112), 112)
            for name, found in photos.items()
        ]
    )
    with torch.no_grad():
        embeddings = torch.cat([model.embed(model.preprocess(part)) for part in np.array_split(crops, 4)])
    units = torch.nn.functional.normalize(embeddings).numpy()
    people = np.array([Path(name).parent.name for name in photos])
    pairs = np.triu(people[:, None] == people[None, :], 1)
    cosines = (units @ units.T)[pairs]
    assert len(cosines) == 140
    assert cosines.mean() == pytest.approx(0.735, abs=0.02)
    assert cosines.std() == pytest.approx(0.087, abs=0.02)


def test_left_and_right_are_those_of_the_picture(detector: DlibDetector, photo: np.ndarray) -> None:
    face = one_face(detector.detect(photo))
    mirrored = one_face(detector.detect(np.ascontiguousarray(photo[:, ::-1])))
    assert face.landmarks is not None
    assert mirrored.landmarks is not None
    back = mirrored.landmarks[MIRRORED]
    back[:, 0] = photo.shape[1] - 1 - back[:, 0]
    assert np.median(np.linalg.norm(back - face.landmarks, axis=1)) < 4
    for found in (face, mirrored):
        assert found.points[0, 0] < found.points[2, 0] < found.points[1, 0]


def test_the_paper_crop_of_every_photo_holds_the_whole_face(photos: dict[str, list[Detection]]) -> None:
    for name, found in photos.items():
        points = one_face(found).landmarks
        transform = paper_transform(points, 112)
        inside = points @ transform[:, :2].T + transform[:, 2]
        low, high = inside.min(axis=0), inside.max(axis=0)
        height, width = (high - low)[::-1]
        assert low[1] + 0.5 >= 0.25 * height - 1e-3, name
        assert 111.5 - high[1] >= 0.1 * height - 1e-3, name
        assert min(low[0] + 0.5, 111.5 - high[0]) >= 0.1 * width - 1e-3, name
        eyes = inside[42:48].mean(axis=0) - inside[36:42].mean(axis=0)
        axis = inside[8] - (inside[36:42].mean(axis=0) + inside[42:48].mean(axis=0)) / 2
        assert abs(np.degrees(np.arctan2(eyes[1], eyes[0]))) < 4, name
        assert abs(np.degrees(np.arctan2(axis[0], axis[1]))) < 2, name


def test_a_larger_photo_gives_the_same_face(detector: DlibDetector, photo: np.ndarray) -> None:
    height, width = photo.shape[:2]
    small = one_face(detector.detect(photo)).landmarks
    large = one_face(detector.detect(resize_image(photo, width * 3, height * 3))).landmarks
    assert np.median(np.abs((large + 0.5) / 3 - 0.5 - small)) < 1


def test_upside_down_photos_are_refused(detector: DlibDetector, shared_data: Path) -> None:
    for file in sorted(shared_data.glob("photos/*/*.jpg")):
        picture = read_image(file).pixels
        find_face(detector, picture)
        with pytest.raises(FaceError, match="no face found|face is upside down"):
            find_face(detector, np.ascontiguousarray(picture[::-1, ::-1]))


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("none_*", "no face found"),
        ("multi_couple*", "2 faces found, exactly one is needed"),
        ("multi_selfie*", "4 faces found, exactly one is needed"),
        ("small_*", "no face found"),
        (
            "upsidedown_*",
            r"face is upside down: it scores 2\.\d+ in the picture turned by 180 degrees, 0\.1\d+ as",
        ),
    ],
)
def test_difficult_photos_are_refused(
    pattern: str, reason: str, detector: DlibDetector, shared_data: Path
) -> None:
    files = sorted(shared_data.glob(f"photos_bad/{pattern}"))
    assert files
    for file in files:
        with pytest.raises(FaceError, match=reason):
            find_face(detector, read_image(file).pixels)

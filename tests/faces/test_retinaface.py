"""RetinaFace by facer: its weights, its coordinates, and how many faces the test photos hold."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from leamfast.datasets.decoding import read_image
from leamfast.errors import RequestError
from leamfast.faces.alignment import ARCFACE_TEMPLATE, FaceError, resize_image, similarity_transform
from leamfast.faces.detection import parse_detector
from leamfast.faces.retinaface import RetinaFaceDetector, _folded, anchors
from leamfast.faces.selection import (
    RETINAFACE_SCORES,
    THRESHOLD,
    Detection,
    find_face,
    find_faces,
    one_face,
)

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "mobilenet0.25_Final.pth"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # The network is small: on a busy machine its threads wait for each other ten times as long as they work.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random weights of the right network."""
    from facer.face_detection import retinaface

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return retinaface.RetinaFace(cfg=retinaface.cfg_mnet, phase="test").state_dict()


@pytest.fixture(scope="module")
def random_detector(
    state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> RetinaFaceDetector:
    file = tmp_path_factory.mktemp("detector") / "random.pth"
    torch.save(state, file)
    return RetinaFaceDetector(file)


@pytest.fixture(scope="module")
def detector(shared_data: Path) -> RetinaFaceDetector:
    return parse_detector(f"retinaface={shared_data / WEIGHTS}").load()


@pytest.fixture(scope="module")
def photo(shared_data: Path) -> np.ndarray:
    return read_image(shared_data / "photos" / "id00" / "img1.jpg").pixels


# Weights


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {
            "state_dict": {f"module.{name}": value for name, value in state.items()},
            "epoch": 250,
        },
    ],
)
def test_weights_are_loaded_as_they_are_published(
    wrap: Callable[[dict], dict], state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    torch.save(wrap(state), file)
    from facer.face_detection import retinaface

    net = retinaface.RetinaFace(cfg=retinaface.cfg_mnet, phase="test").eval()
    net.load_state_dict(state)
    expected = _folded(net).state_dict()
    loaded = RetinaFaceDetector(file)._net.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())


def test_weights_of_another_network_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    lacking = dict(list(state.items())[1:])
    surplus = {**state, "fc.weight": torch.zeros(1)}
    reshaped = {**state, "body.stage1.0.0.weight": torch.zeros(1)}
    for tensors in (lacking, surplus, reshaped, {"a": torch.zeros(1)}, {}):
        file = tmp_path / "other.pth"
        torch.save(tensors, file)
        with pytest.raises(
            RequestError, match=r"mobilenet0.25_Final.pth, got .*other.pth: its tensors are those of"
        ):
            RetinaFaceDetector(file)


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"state_dict": 3}, {"a": 1}])
def test_files_without_a_state_dict_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(RequestError, match=r"a\.pth: it holds no state dict"):
        RetinaFaceDetector(tmp_path / "a.pth")


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"weights", b"PK\x03\x04 broken", b"\x89PNG\r\n\x1a\n"):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(RequestError, match=r"a\.pth: it is no PyTorch checkpoint of plain tensors"):
            RetinaFaceDetector(tmp_path / "a.pth")
    with pytest.raises(RequestError, match="no such file"):
        RetinaFaceDetector(tmp_path / "absent.pth")
    (tmp_path / "a.pth").write_bytes(b"\n<!DOCTYPE html><html><title>404</title></html>")
    with pytest.raises(RequestError, match=r"a\.pth: it is a web page, as a download gives that failed"):
        RetinaFaceDetector(tmp_path / "a.pth")


class _Touch:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_weight_file_is_not_run(zipped: bool, tmp_path: Path) -> None:
    file, trace = tmp_path / "a.pth", tmp_path / "trace"
    if zipped:
        torch.save({"a": _Touch(trace)}, file)
    else:
        file.write_bytes(pickle.dumps({"a": _Touch(trace)}))
    with pytest.raises(RequestError, match="it is no PyTorch checkpoint of plain tensors"):
        RetinaFaceDetector(file)
    assert not trace.exists()


def test_importing_does_not_import_facer() -> None:
    code = (
        "import sys, leamfast.faces.detection, leamfast.faces.retinaface\n"
        "assert not {'facer', 'cv2', 'timm', 'torchvision', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_loading_prints_and_warns_nothing(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pth")
    code = (
        "import sys; from pathlib import Path; from leamfast.faces.retinaface import RetinaFaceDetector\n"
        "RetinaFaceDetector(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-W", "default", "-c", code, str(tmp_path / "a.pth")]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_machine_without_facer_gets_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "facer"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "facer", None)
    with pytest.raises(RequestError, match=r"needs the package pyfacer.*pip install pyfacer"):
        RetinaFaceDetector(tmp_path / "a.pth")


# Anchors and coordinates


@pytest.mark.parametrize(("height", "width"), [(640, 480), (1, 1), (17, 33), (639, 640), (33, 640)])
def test_anchors_are_those_of_facer(height: int, width: int) -> None:
    from facer.face_detection.retinaface import PriorBox, cfg_mnet

    expected = PriorBox(cfg_mnet, (height, width)).generate_anchors("cpu")
    assert torch.equal(anchors(height, width, cfg_mnet), expected)


def test_coordinates_are_those_of_the_picture_as_given(
    random_detector: RetinaFaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def found(images: list[np.ndarray]) -> list:
        seen.extend(image.shape for image in images)
        return [[(np.float32([0, 10, 20, 30]), np.float32([[10, 20]] * 5), 0.9)] for _ in images]

    monkeypatch.setattr(random_detector, "_detect_small", found)
    face = random_detector.detect(np.zeros((1280, 960, 3), np.uint8))[0]
    # Pixel 10 of the shrunk picture covers pixels 20 and 21, so that its centre lies at 20.5.
    np.testing.assert_array_equal(face.points, [[20.5, 40.5]] * 5)
    np.testing.assert_array_equal(face.box, [0.5, 20.5, 40.5, 60.5])
    assert face.points.dtype == face.box.dtype == np.float32
    face = random_detector.detect(np.zeros((480, 640, 3), np.uint8))[0]
    np.testing.assert_array_equal(face.points, [[10, 20]] * 5)
    random_detector.detect(np.zeros((1, 6400, 3), np.uint8))
    assert seen == [(640, 480, 3), (480, 640, 3), (1, 640, 3)]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 2000, 3), (5, 640, 3)])
def test_pictures_of_any_shape_are_searched(
    shape: tuple[int, ...], random_detector: RetinaFaceDetector
) -> None:
    assert isinstance(random_detector.detect(np.zeros(shape, np.uint8)), list)


def test_wrong_pictures_are_refused(random_detector: RetinaFaceDetector) -> None:
    with pytest.raises(TypeError, match="image must be uint8, got float32"):
        random_detector.detect(np.zeros((8, 8, 3), np.float32))
    for shape in ((8, 8), (8, 8, 4), (0, 8, 3)):
        with pytest.raises(ValueError, match=r"image must have shape \(H, W, 3\), got"):
            random_detector.detect(np.zeros(shape, np.uint8))


def test_candidates_are_reported_only_where_there_is_no_face(
    random_detector: RetinaFaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(np.float32([0, 10, 20, 30]), np.float32([[10, 20]] * 5), score) for score in (0.9, 0.8, 0.7)]
    picture = np.zeros((480, 640, 3), np.uint8)
    monkeypatch.setattr(random_detector, "_detect_small", lambda images: [found])
    assert [face.score for face in random_detector.detect(picture)] == [0.9]
    del found[0]
    assert [face.score for face in random_detector.detect(picture)] == [0.8]
    found.clear()
    assert random_detector.detect(picture) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_is_its_pictures(random_detector: RetinaFaceDetector, threads: int) -> None:
    random = np.random.default_rng(0)
    sizes = [(40, 56), (33, 47), (40, 56), (1, 9), (40, 56)]
    pictures = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    torch.set_num_threads(threads)
    try:
        _assert_equal(
            random_detector.detect_many(pictures), [random_detector.detect(picture) for picture in pictures]
        )
    finally:
        torch.set_num_threads(1)
    assert random_detector.detect_many([]) == []


def test_candidates_are_thinned_as_by_facer(
    random_detector: RetinaFaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of candidates in each of two pictures, and none in a third."""
    from facer.face_detection.retinaface import cfg_mnet, post_process

    priors = anchors(120, 160, cfg_mnet)
    size = torch.tensor([160.0, 120.0])
    random = torch.Generator().manual_seed(0)
    boxes = torch.randn(3, len(priors), 4, generator=random)
    points = torch.randn(3, len(priors), 10, generator=random)
    likely = torch.rand(3, len(priors), generator=random)
    likely[1] *= 0.5
    scores = torch.stack([1 - likely, likely], 2)

    def net(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert pixels.shape == (3, 3, 120, 160)
        return boxes, scores, points

    monkeypatch.setattr(random_detector, "_net", net)
    found = random_detector._detect_small([np.zeros((120, 160, 3), np.uint8)] * 3)
    for picture, faces in enumerate(found):
        expected = post_process(
            boxes[picture], scores[picture], points[picture], priors, cfg_mnet,
            size.repeat(2), size.repeat(5), 1, 0.5, 5000, 0.4, 750,
        )  # fmt: skip
        assert (len(expected) > 20) == (picture != 1)
        assert len(faces) == len(expected) < len(priors)
        for (box, marks, score), (their_box, their_marks, their_score) in zip(faces, expected, strict=True):
            np.testing.assert_array_equal(box, their_box.numpy())
            np.testing.assert_array_equal(marks, their_marks.numpy())
            assert score == their_score


def _refusal(detector: RetinaFaceDetector, picture: np.ndarray) -> str:
    with pytest.raises(FaceError) as caught:
        find_face(detector, picture)
    return str(caught.value)


def _assert_equal(found: list[list[Detection]], expected: list[list[Detection]]) -> None:
    assert [len(faces) for faces in found] == [len(faces) for faces in expected]
    for one, other in zip(sum(found, []), sum(expected, []), strict=True):
        np.testing.assert_array_equal(one.box, other.box)
        np.testing.assert_array_equal(one.points, other.points)
        assert one.score == other.score


# Photos


def test_a_batch_of_photos_is_its_photos(detector: RetinaFaceDetector, shared_data: Path) -> None:
    files = sorted(shared_data.glob("photos/id0[0-4]/*.jpg")) + sorted(shared_data.glob("photos_bad/none_*"))
    pictures = [read_image(file).pixels for file in files]
    assert len({picture.shape for picture in pictures}) > 5
    _assert_equal(detector.detect_many(pictures), [detector.detect(picture) for picture in pictures])
    for picture, one in zip(pictures, find_faces(detector, pictures), strict=True):
        if isinstance(one, FaceError):
            assert str(one) == _refusal(detector, picture)
        else:
            _assert_equal([[one]], [[find_face(detector, picture)]])


def test_every_photo_holds_one_face(detector: RetinaFaceDetector, shared_data: Path) -> None:
    photos = sorted(shared_data.glob("photos/*/*.jpg"))
    assert len(photos) == 61
    for file in photos:
        image = read_image(file).pixels
        face = one_face(detector.detect(image))
        assert face.score > THRESHOLD
        transform = similarity_transform(face.points, 112)
        aligned = face.points @ transform[:, :2].T + transform[:, 2]
        # Points in the template's order land near it; any two of them swapped would not.
        assert np.abs(aligned - ARCFACE_TEMPLATE).max() < 12, file.name


@pytest.mark.parametrize(
    ("pattern", "pictures", "faces"),
    [
        ("none_*", 3, 0),
        ("multi_couple*", 1, 2),
        ("multi_selfie*", 1, 6),
        ("small_*", 1, 1),
        ("upsidedown_*", 1, 1),
    ],
)
def test_faces_of_difficult_photos(
    pattern: str, pictures: int, faces: int, detector: RetinaFaceDetector, shared_data: Path
) -> None:
    files = sorted(shared_data.glob(f"photos_bad/{pattern}"))
    assert len(files) == pictures
    for file in files:
        found = detector.detect(read_image(file).pixels)
        assert len(found) == faces, file.name
        assert [face.score for face in found] == sorted((face.score for face in found), reverse=True)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("none_*", r"no face found"),
        ("multi_couple*", "2 faces found, exactly one is needed"),
        ("multi_selfie*", "6 faces found, exactly one is needed"),
        ("small_*", r"face is too small: its eyes are 14\.6 pixels apart, at least 20 are needed"),
        ("upsidedown_*", r"face is upside down or not whole: .* has a side of 18\d, at most 135"),
    ],
)
def test_difficult_photos_are_refused(
    pattern: str, sentence: str, detector: RetinaFaceDetector, shared_data: Path
) -> None:
    for file in sorted(shared_data.glob(f"photos_bad/{pattern}")):
        found = detector.detect(read_image(file).pixels)
        with pytest.raises(FaceError, match=sentence):
            one_face(found)


def test_the_largest_face_of_a_group_is_used(detector: RetinaFaceDetector, shared_data: Path) -> None:
    for name in ("multi_couple", "multi_selfie-many-people"):
        picture = read_image(shared_data / "photos_bad" / f"{name}.jpg").pixels
        found = detector.detect(picture)
        kept = find_face(detector, picture, faces="largest")
        areas = [np.prod(face.box[2:] - face.box[:2]) for face in found]
        assert np.prod(kept.box[2:] - kept.box[:2]) == max(areas)


def test_no_upside_down_photo_is_used(detector: RetinaFaceDetector, shared_data: Path) -> None:
    """All photos as they are, and turned by 180 degrees: points tell some of these, scores the others."""
    by_points = searched = 0
    for file in sorted(shared_data.glob("photos/*/*.jpg")):
        picture = read_image(file).pixels
        kept = find_face(detector, picture)
        searched += kept.score < RETINAFACE_SCORES.upright
        turned = np.ascontiguousarray(picture[::-1, ::-1])
        found = detector.detect(turned)
        assert all(face.score < RETINAFACE_SCORES.upright for face in found), file.name
        with pytest.raises(FaceError, match="no face found|upside down") as caught:
            find_face(detector, turned)
        by_points += "upside down" in str(caught.value) and "turned by" not in str(caught.value)
    assert searched <= 10
    assert by_points >= 30


def test_faces_are_those_of_facer(detector: RetinaFaceDetector, photo: np.ndarray, shared_data: Path) -> None:
    from facer.face_detection.retinaface import RetinaFaceDetector as Facer

    facer = Facer("mobilenet", model_path=str(shared_data / WEIGHTS), threshold=THRESHOLD)
    with torch.inference_mode():
        expected = facer(torch.from_numpy(photo).permute(2, 0, 1)[None])
    face = one_face(detector.detect(photo))
    # Folded batch normalisations round otherwise.
    np.testing.assert_allclose(face.points, expected["points"][0].numpy(), rtol=0, atol=2e-3)
    np.testing.assert_allclose(face.box, expected["rects"][0].numpy(), rtol=0, atol=2e-3)
    assert face.score == pytest.approx(float(expected["scores"][0]))


def test_views_are_searched_like_copies(detector: RetinaFaceDetector, photo: np.ndarray) -> None:
    view = photo[:, ::-1]
    np.testing.assert_array_equal(
        one_face(detector.detect(view)).points, one_face(detector.detect(view.copy())).points
    )


def test_a_larger_photo_gives_the_same_face(detector: RetinaFaceDetector, photo: np.ndarray) -> None:
    height, width = photo.shape[:2]
    small = one_face(detector.detect(photo)).points
    large = one_face(detector.detect(resize_image(photo, width * 3, height * 3))).points
    assert np.abs((large + 0.5) / 3 - 0.5 - small).max() < 1

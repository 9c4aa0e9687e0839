"""Which face of a picture can be used, and the sentence for every one that cannot."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from leamfast.faces.alignment import ARCFACE_TEMPLATE, FaceError
from leamfast.faces.selection import (
    RETINAFACE_SCORES,
    THRESHOLD,
    Detection,
    check_face,
    check_upright,
    find_face,
    find_faces,
    one_face,
)


def face(
    scale: float = 1.0, turn: float = 0.0, score: float = 0.9999, box: float = 95.0, at: float = 300.0
) -> Detection:
    """The template's face, enlarged and turned (in radians) about its centre, with a square box."""
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (ARCFACE_TEMPLATE - ARCFACE_TEMPLATE.mean(0)) @ rotation.T + at
    half = scale * box / 2
    return Detection(
        np.float32([at - half, at - half, at + half, at + half]), points.astype(np.float32), score
    )


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(FaceError) as caught:
        call()
    return str(caught.value)


def test_one_face_is_one_face() -> None:
    first, second = face(), face(1.2)
    assert one_face([first]) is first
    assert reason(lambda: one_face([])) == "no face found"
    assert reason(lambda: one_face([first, second])) == "2 faces found, exactly one is needed"


def test_the_largest_face_has_the_largest_box() -> None:
    first, second = face(1.0, score=0.9999), face(1.2, score=0.9)
    assert one_face([first, second], faces="largest") is second
    assert one_face([second, first], faces="largest") is second
    assert reason(lambda: one_face([], faces="largest")) == "no face found"
    # It is not passed over for a smaller face that would do.
    turned = face(1.2, turn=np.pi)
    assert "upside down" in reason(lambda: one_face([first, turned], faces="largest"))
    with pytest.raises(ValueError, match="faces must be one of one, largest, got 'all'"):
        one_face([first], faces="all")


def test_low_scores_are_refused_with_their_number() -> None:
    low = face(score=0.62)
    sentence = "no face found: the best candidate scores 0.62, more than 0.8 is needed"
    assert reason(lambda: one_face([face(score=0.5), low])) == sentence
    assert reason(lambda: one_face([low], faces="largest")) == sentence
    sure = face()
    assert one_face([sure, low]) is sure
    assert reason(lambda: one_face([face(score=THRESHOLD)])).startswith("no face found: the best")


def test_small_faces_are_refused_with_their_number() -> None:
    eyes = float(np.linalg.norm(ARCFACE_TEMPLATE[1] - ARCFACE_TEMPLATE[0]))
    check_face(face(20.1 / eyes))
    sentence = "face is too small: its eyes are 19.9 pixels apart, at least 20 are needed"
    assert reason(lambda: check_face(face(19.9 / eyes))) == sentence


@pytest.mark.parametrize("scale", [0.6, 3.0])
@pytest.mark.parametrize("degrees", [-60, -30, 0, 30, 60])
def test_tilted_faces_are_used(degrees: float, scale: float) -> None:
    check_face(face(scale, np.radians(degrees)))


@pytest.mark.parametrize("degrees", [100, 150, 180, -150, -100])
def test_eyes_below_the_mouth_are_upside_down(degrees: float) -> None:
    turned = face(turn=np.radians(degrees))
    assert reason(lambda: check_face(turned)) == "face is upside down: its eyes are below its mouth"


def test_points_too_small_for_their_box_are_refused() -> None:
    check_face(face(box=134))
    assert reason(lambda: check_face(face(2.0, box=181))) == (
        "face is upside down or not whole: in a crop of 112 pixels its box has a side of 181, "
        "at most 135 is allowed"
    )


def test_a_face_that_scores_higher_turned_is_upside_down() -> None:
    doubtful = face(score=0.99, at=100.0)
    there = face(score=0.999, at=638 - 100.0)
    # In a picture of 639 x 639 pixels, pixel 100 becomes pixel 538 when it is turned.
    assert reason(lambda: check_upright(doubtful, [there], (639, 639, 3))) == (
        "face is upside down: it scores 0.9990 in the picture turned by 180 degrees, 0.9900 as it is"
    )
    check_upright(doubtful, [], (639, 639))
    check_upright(doubtful, [face(score=0.98, at=538.0)], (639, 639))
    # Another face of the picture may be upside down.
    check_upright(doubtful, [face(score=0.999, at=100.0)], (639, 639))


class _Scripted:
    """A detector that returns one face for a picture and one for the same, turned."""

    def __init__(self, *found: Detection) -> None:
        self.found = list(found)
        self.seen: list[np.ndarray] = []

    def detect(self, image: np.ndarray) -> list[Detection]:
        self.seen.append(image)
        return [self.found[len(self.seen) - 1]]


def test_the_turned_picture_is_searched_only_in_doubt() -> None:
    picture = np.arange(601 * 601 * 3, dtype=np.uint8).reshape(601, 601, 3)
    sure = face(score=RETINAFACE_SCORES.upright)
    detector = _Scripted(sure)
    assert find_face(detector, picture) is sure
    assert len(detector.seen) == 1
    doubtful = face(score=0.997)
    detector = _Scripted(doubtful, face(score=0.9))
    assert find_face(detector, picture) is doubtful
    assert len(detector.seen) == 2
    np.testing.assert_array_equal(detector.seen[1], np.rot90(picture, 2))
    assert "scores 0.9980 in the" in reason(lambda: find_face(_Scripted(doubtful, sure), picture))


class _ByMark:
    """A detector that finds what is said for the first value of a picture, and the last one when turned."""

    def __init__(self, found: dict[int, list[Detection]]) -> None:
        self.found = found
        self.batches: list[int] = []

    def detect(self, image: np.ndarray) -> list[Detection]:
        return self.found[int(image[0, 0, 0])]

    def detect_many(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        self.batches.append(len(images))
        return [self.detect(image) for image in images]


def test_pictures_searched_together_are_searched_like_each() -> None:
    doubtful, there = face(score=0.99), face(score=0.999, at=300.0)
    detector = _ByMark({0: [face()], 1: [], 2: [doubtful], 3: [there], 4: [face(score=0.98)]})
    pictures = []
    for first, last in ((0, 1), (2, 3), (1, 0), (2, 4), (2, 1), (0, 0)):
        picture = np.zeros((601, 601, 3), np.uint8)
        picture[0, 0], picture[-1, -1] = first, last
        pictures.append(picture)
    found = find_faces(detector, pictures)
    assert detector.batches == [6, 3]
    for picture, one in zip(pictures, found, strict=True):
        if isinstance(one, FaceError):
            assert str(one) == reason(lambda picture=picture: find_face(detector, picture))
        else:
            assert one is find_face(detector, picture)
    assert [isinstance(one, FaceError) for one in found] == [False, True, True, False, False, False]
    assert find_faces(detector, []) == []

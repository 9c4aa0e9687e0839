"""The similarity onto the template, and warping and resizing with one pixel-centre convention."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from leamfast.errors import RequestError
from leamfast.faces.alignment import (
    ARCFACE_TEMPLATE,
    MIRRORED,
    FaceError,
    five_points,
    paper_transform,
    resize_crop,
    resize_image,
    resize_label,
    similarity_transform,
    warp_image,
    warp_label,
)
from leamfast.faces.parse_names import UNKNOWN

ROOT = Path(__file__).resolve().parents[2]


def similarity(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ transform[:, :2].T + transform[:, 2]


def noise(height: int, width: int, *channels: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(5).integers(0, high, (height, width, *channels), dtype=np.uint8)


def sampled(image: np.ndarray, transform: np.ndarray, size: int, nearest: bool) -> np.ndarray:
    """The crop from its definition: pull the centre of each of its pixels back and look the image up.

    Outside the image it is 0, or `UNKNOWN`.
    """
    y, x = np.mgrid[:size, :size].astype(float)
    inverse = np.linalg.inv(transform[:, :2])
    x, y = np.moveaxis((np.stack([x, y], axis=-1) - transform[:, 2]) @ inverse.T, -1, 0)
    outside = UNKNOWN if nearest else 0
    padded = np.pad(
        image.astype(float), [(2, 2), (2, 2)] + [(0, 0)] * (image.ndim - 2), constant_values=outside
    )
    x = np.clip(x + 2, 0, image.shape[1] + 2.99)
    y = np.clip(y + 2, 0, image.shape[0] + 2.99)
    if nearest:
        return padded[np.floor(y + 0.5).astype(int), np.floor(x + 0.5).astype(int)]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    u, v = (x - left)[..., None], (y - top)[..., None]
    upper = padded[top, left] * (1 - u) + padded[top, left + 1] * u
    lower = padded[top + 1, left] * (1 - u) + padded[top + 1, left + 1] * u
    return upper * (1 - v) + lower * v


# The similarity


def test_the_template_itself_needs_no_move() -> None:
    np.testing.assert_allclose(similarity_transform(ARCFACE_TEMPLATE, 112), np.eye(2, 3), atol=1e-12)
    doubled = similarity_transform(ARCFACE_TEMPLATE, 224)
    np.testing.assert_allclose(doubled, 2 * np.eye(2, 3), atol=1e-12)
    assert doubled.dtype == np.float64


@pytest.mark.parametrize("size", [112, 160])
@pytest.mark.parametrize("angle", [0.0, 0.3, -2.0, np.pi])
def test_a_moved_template_is_moved_back(angle: float, size: int) -> None:
    moved = apply(similarity(angle, 3.7, (400, -20)), ARCFACE_TEMPLATE)
    transform = similarity_transform(moved.astype(np.float32), size)
    np.testing.assert_allclose(apply(transform, moved), ARCFACE_TEMPLATE * size / 112, atol=1e-3)


def test_no_other_similarity_fits_better() -> None:
    random = np.random.default_rng(1)
    points = ARCFACE_TEMPLATE * 2 + random.normal(0, 6, (5, 2))
    best = similarity_transform(points, 112)

    def error(transform: np.ndarray) -> float:
        return float(((apply(transform, points) - ARCFACE_TEMPLATE) ** 2).sum())

    for step in random.normal(0, 1e-3, (200, 4)):
        a, b, x, y = step
        assert error(best + np.array([[a, -b, x], [b, a, y]])) >= error(best)
    np.testing.assert_allclose(best[0, 0], best[1, 1])
    np.testing.assert_allclose(best[0, 1], -best[1, 0])


def test_it_agrees_with_umeyama() -> None:
    """The closed form by complex numbers against the singular value decomposition of the paper."""
    random = np.random.default_rng(2)
    for _ in range(20):
        points = ARCFACE_TEMPLATE + random.normal(0, 15, (5, 2))
        p, q = points - points.mean(0), ARCFACE_TEMPLATE - ARCFACE_TEMPLATE.mean(0)
        u, d, vt = np.linalg.svd(q.T @ p / 5)
        sign = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
        linear = u @ sign @ vt * np.trace(np.diag(d) @ sign) / (p**2).sum(1).mean()
        transform = similarity_transform(points, 112)
        np.testing.assert_allclose(transform[:, :2], linear, atol=1e-9)
        assert np.linalg.det(transform[:, :2]) > 0


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.full((5, 2), 7.0), "face points coincide"),
        (np.where(np.eye(5, 2), np.nan, 1.0), "face points are not finite"),
        (np.where(np.eye(5, 2), np.inf, 1.0), "face points are not finite"),
        ([[0, 0], [0, 0], [1, 0], [0, 0], [0, 0]], None),
    ],
)
def test_points_that_fix_no_similarity(points: np.ndarray, reason: str | None) -> None:
    if reason is None:
        assert np.isfinite(similarity_transform(points, 112)).all()
        return
    with pytest.raises(FaceError, match=reason):
        similarity_transform(points, 112)


def test_points_without_any_resemblance() -> None:
    # Orthogonal to the centred template and to its quarter turn: every rotation fits equally badly.
    q = (ARCFACE_TEMPLATE - ARCFACE_TEMPLATE.mean(0)) @ [1, 1j]
    p = np.array([1, -1, 0, 1j, -1j], dtype=complex) * 40
    p -= p.mean()
    p -= q * np.vdot(q, p) / np.vdot(q, q)
    with pytest.raises(FaceError, match="do not resemble a face"):
        similarity_transform(np.column_stack([p.real, p.imag]), 112)


@pytest.mark.parametrize("points", [np.zeros((4, 2)), np.zeros((2, 5)), np.zeros(10)])
def test_points_of_another_shape(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"points must have shape \(5, 2\), got"):
        similarity_transform(points, 112)


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_are_positive(size: int) -> None:
    for call in (
        lambda: similarity_transform(ARCFACE_TEMPLATE, size),
        lambda: warp_image(noise(8, 8, 3), np.eye(2, 3), size),
        lambda: resize_crop(noise(8, 8, 3), size),
        lambda: resize_label(noise(8, 8), size),
    ):
        with pytest.raises(ValueError, match=f"size must be at least 1 pixel, got {size}"):
            call()


# The paper's alignment


def symmetric_face() -> np.ndarray:
    """68 landmarks, symmetric about x = 0: 80 wide, 100 high from brows to chin, in no more detail."""
    points = np.zeros((68, 2))
    angle = np.linspace(np.pi, 0, 17)
    points[:17] = np.column_stack([40 * np.cos(angle), -10 + 70 * np.sin(angle)])
    points[17:27] = np.column_stack(
        [[-35, -30, -25, -18, -10, 10, 18, 25, 30, 35], [-35, -39, -40, -39, -36] * 2]
    )
    points[22:27, 1] = points[21:16:-1, 1]
    points[27:31] = np.column_stack([np.zeros(4), [-25, -15, -8, 0]])
    points[31:36] = np.column_stack([[-8, -4, 0, 4, 8], [4, 5, 6, 5, 4]])
    eye = np.array([[-26, -25], [-22, -28], [-17, -28], [-12, -25], [-17, -23], [-22, -23]])
    points[36:42] = eye
    points[42:48] = (eye * [-1, 1])[[3, 2, 1, 0, 5, 4]]
    for start, count, width, height in ((48, 12, 18, 8), (60, 8, 14, 3)):
        angle = np.pi + 2 * np.pi * np.arange(count) / count
        points[start : start + count] = np.column_stack([width * np.cos(angle), 25 + height * np.sin(angle)])
    return points


def test_the_mirror_partners_are_those_of_a_symmetric_face() -> None:
    np.testing.assert_array_equal(MIRRORED[MIRRORED], np.arange(68))
    np.testing.assert_allclose(symmetric_face()[MIRRORED] * [-1, 1], symmetric_face(), atol=1e-9)
    midline = [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    np.testing.assert_array_equal(np.flatnonzero(np.arange(68) == MIRRORED), midline)


def test_five_points_of_the_landmarks() -> None:
    points = five_points(symmetric_face().astype(np.float32))
    eye = [(-26 - 22 - 17 - 12 - 17 - 22) / 6, (-25 - 28 - 28 - 25 - 23 - 23) / 6]
    expected = [eye, [-eye[0], eye[1]], [0, 0], [-18, 25], [18, 25]]
    np.testing.assert_allclose(points, expected, atol=1e-5)
    # In the template's order: the similarity neither turns nor reflects.
    transform = similarity_transform(points, 112)
    np.testing.assert_allclose(transform[:, 0] / np.hypot(*transform[:, 0]), [1, 0], atol=1e-2)
    with pytest.raises(ValueError, match=r"landmarks must have shape \(68, 2\), got \(5, 2\)"):
        five_points(ARCFACE_TEMPLATE)


@pytest.mark.parametrize("size", [112, 224])
def test_the_paper_crop_by_hand(size: int) -> None:
    # Bounds: x -40..40, y -40..60. Side 1.35 * 100 = 135, from x = -67.5 and y = -40 - 25 = -65.
    transform = paper_transform(symmetric_face(), size)
    scale = size / 135
    expected = [[scale, 0, 67.5 * scale - 0.5], [0, scale, 65 * scale - 0.5]]
    np.testing.assert_allclose(transform, expected, atol=1e-9)
    assert transform.dtype == np.float64


def test_a_wide_face_sets_the_side_by_its_width() -> None:
    points = symmetric_face() * [2, 1]
    # Side 1.2 * 160 = 192; the 92 beyond the height lie above and below as 0.25 to 0.1.
    scale = 112 / 192
    expected = [[scale, 0, 55.5], [0, scale, (40 + 92 * 0.25 / 0.35) * scale - 0.5]]
    np.testing.assert_allclose(paper_transform(points, 112), expected, atol=1e-9)


@pytest.mark.parametrize("angle", [0.3, -1.2, 2.0, np.pi, -3.0])
def test_a_turned_face_gives_the_same_crop(angle: float) -> None:
    move = similarity(angle, 2.7, (310, -45))
    face = symmetric_face()
    expected = apply(paper_transform(face, 160), face)
    turned = apply(move, face).astype(np.float32)
    transform = paper_transform(turned, 160)
    np.testing.assert_allclose(apply(transform, turned), expected, atol=1e-3)
    np.testing.assert_allclose(transform[0, 0], transform[1, 1])
    np.testing.assert_allclose(transform[0, 1], -transform[1, 0])


def test_no_other_angle_is_more_symmetric() -> None:
    random = np.random.default_rng(4)
    for _ in range(10):
        points = apply(
            similarity(random.uniform(-3, 3), 2, (9, 9)), symmetric_face() + random.normal(0, 4, (68, 2))
        )
        linear = paper_transform(points, 112)[:, :2]
        unit = linear / np.sqrt(np.linalg.det(linear))
        centred = (points - points.mean(0)) @ unit.T

        def asymmetry(turn: float, centred: np.ndarray = centred) -> float:
            turned = apply(similarity(turn, 1, (0, 0)), centred)
            return float(((turned[MIRRORED] * [-1, 1] - turned) ** 2).sum())

        assert all(asymmetry(0) <= asymmetry(turn) for turn in np.linspace(-np.pi / 2, np.pi / 2, 41))


def test_a_mirrored_photo_gives_the_mirrored_crop() -> None:
    points = symmetric_face() + np.random.default_rng(6).normal(0, 3, (68, 2))
    crop = apply(paper_transform(points, 112), points)
    mirrored = points[MIRRORED] * [-1, 1] + [639, 0]
    mirrored_crop = apply(paper_transform(mirrored, 112), mirrored)
    np.testing.assert_allclose(mirrored_crop[MIRRORED] * [-1, 1] + [111, 0], crop, atol=1e-9)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.full((68, 2), 7.0), "face landmarks coincide"),
        (np.where(np.eye(68, 2), np.nan, 1.0), "face landmarks are not finite"),
        (np.where(np.eye(68, 2), np.inf, 1.0), "face landmarks are not finite"),
        # Without any symmetry; and a mirror image, which no rotation makes right.
        (np.random.default_rng(7).normal(0, 50, (68, 2)), "face landmarks do not resemble a face"),
        (symmetric_face() * [-1, 1], "face landmarks do not resemble a face"),
    ],
)
def test_landmarks_that_are_no_face(points: np.ndarray, reason: str) -> None:
    with pytest.raises(FaceError, match=reason):
        paper_transform(points, 112)


def test_landmarks_of_another_shape_and_sizes() -> None:
    for shape in ((5, 2), (2, 68), (136,)):
        with pytest.raises(ValueError, match=r"landmarks must have shape \(68, 2\), got"):
            paper_transform(np.zeros(shape), 112)
    with pytest.raises(ValueError, match="size must be at least 1 pixel, got 0"):
        paper_transform(symmetric_face(), 0)


# Warping


def test_whole_pixel_moves_copy_pixels() -> None:
    image, label = noise(60, 70, 3), noise(60, 70, high=19)
    shift = np.array([[1.0, 0, -5], [0, 1, -3]])
    np.testing.assert_array_equal(warp_image(image, shift, 50), image[3:53, 5:55])
    np.testing.assert_array_equal(warp_label(label, shift, 50), label[3:53, 5:55])


def test_outside_is_black_and_unknown() -> None:
    shift = np.array([[1.0, 0, 10], [0, 1, 10]])
    crop = warp_image(np.full((20, 20, 3), 200, np.uint8), shift, 40)
    expected = np.zeros((40, 40, 3), np.uint8)
    expected[10:30, 10:30] = 200
    np.testing.assert_array_equal(crop, expected)
    labels = np.where(expected[..., 0] > 0, 7, UNKNOWN)
    np.testing.assert_array_equal(warp_label(np.full((20, 20), 7, np.uint8), shift, 40), labels)
    far = np.array([[1.0, 0, 500], [0, 1, 500]])
    assert (warp_label(np.full((20, 20), 7, np.uint8), far, 40) == UNKNOWN).all()


@pytest.mark.parametrize("size", [1, 64, 160])
def test_warping_follows_its_definition(size: int) -> None:
    transform = similarity(0.4, 1.3, (7.3, -11.2))
    image, label = noise(60, 70, 3), noise(60, 70, high=19)
    crop = warp_image(image, transform, size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    # OpenCV before version 5 places samples on a grid of 1/32 pixel; from 5 on the error is rounding alone.
    assert np.abs(crop - sampled(image, transform, size, nearest=False)).mean() < 2
    wrong = warp_label(label, transform, size) != sampled(label, transform, size, nearest=True)
    assert wrong.mean() < 0.02


def test_views_are_warped_like_copies() -> None:
    image = noise(60, 70, 3)
    transform = similarity(0.1, 0.9, (1, 2))
    for view in (image[:, ::-1], image[::2, 1:], image[..., ::-1]):
        np.testing.assert_array_equal(warp_image(view, transform, 48), warp_image(view.copy(), transform, 48))


def test_a_transform_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"transform must have shape \(2, 3\), got \(3, 3\)"):
        warp_image(noise(8, 8, 3), np.eye(3), 8)


def test_a_picture_that_opencv_does_not_take_is_no_face(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    wide = np.zeros((10, 40_000, 3), np.uint8)
    far = np.array([[1.0, 0, -39_980], [0, 1, 0]])
    wide[:, 39_990:] = 200
    try:
        assert (warp_image(wide, far, 20)[:10, 10:] == 200).all()
    except FaceError:
        assert int(cv2.__version__.split(".")[0]) < 5

    def refuse(*_: object, **__: object) -> None:
        raise cv2.error("Assertion failed: src.cols < SHRT_MAX")

    monkeypatch.setattr(cv2, "warpAffine", refuse)
    with pytest.raises(FaceError, match="picture of 40000x10 pixels is too large to be warped"):
        warp_image(wide, far, 20)


# Crops that are aligned already


def test_a_crop_of_the_right_size_is_unchanged() -> None:
    image, label = noise(112, 112, 3), noise(112, 112, high=19)
    crop, transform = resize_crop(image, 112)
    np.testing.assert_array_equal(crop, image)
    np.testing.assert_array_equal(transform, np.eye(2, 3))
    np.testing.assert_array_equal(resize_label(label, 112), label)


def test_shrinking_averages_areas() -> None:
    image = noise(8, 8, 3)
    crop, transform = resize_crop(image, 4)
    means = image.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(crop - means).max() <= 0.5
    np.testing.assert_allclose(transform, [[0.5, 0, -0.25], [0, 0.5, -0.25]])


def test_enlarging_is_the_same_as_warping_with_the_transform() -> None:
    image = noise(40, 40, 3)
    crop, transform = resize_crop(image, 100)
    np.testing.assert_allclose(transform, [[2.5, 0, 0.75], [0, 2.5, 0.75]])
    warped = warp_image(image, transform, 100)
    # The border of a warp is black, that of a resize repeats the outermost pixels.
    inside = slice(2, -2)
    assert np.abs(crop[inside, inside].astype(int) - warped[inside, inside]).max() <= 2


@pytest.mark.parametrize(("side", "size"), [(100, 50), (50, 100), (113, 112), (7, 20), (200, 33), (3, 1)])
def test_labels_take_the_nearest_pixel(side: int, size: int) -> None:
    label = noise(side, side, high=19)
    nearest = np.floor((np.arange(size) + 0.5) * side / size).astype(int)
    np.testing.assert_array_equal(resize_label(label, size), label[np.ix_(nearest, nearest)])


def test_a_crop_that_is_not_square_is_refused() -> None:
    with pytest.raises(FaceError) as caught:
        resize_crop(noise(30, 40, 3), 112)
    assert str(caught.value) == "crop is 40x30, not square"
    with pytest.raises(FaceError, match="crop is 40x30, not square"):
        resize_label(noise(30, 40), 112)


def test_resize_image_takes_width_before_height() -> None:
    assert resize_image(noise(30, 40, 3), 20, 10).shape == (10, 20, 3)
    image = noise(30, 40, 3)
    assert resize_image(image, 40, 30) is image


# Without OpenCV


def test_importing_needs_no_opencv() -> None:
    code = "import sys; sys.modules['cv2'] = None; import leamfast.faces.alignment"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_machine_without_opencv_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(RequestError, match=r"opencv-python.*libgl1 and libglib2\.0-0"):
        warp_image(noise(8, 8, 3), np.eye(2, 3), 8)

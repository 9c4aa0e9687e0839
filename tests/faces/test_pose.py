"""How a head is turned, from five points: laws on a head of five points in space, and synthetic faces."""

import numpy as np
import pytest

from leamfast.datasets.synthetic import FaceGenerator
from leamfast.datasets.synthetic.nuisance import draw_nuisance
from leamfast.faces import pose
from leamfast.faces.alignment import ARCFACE_TEMPLATE, similarity_transform
from leamfast.faces.pose import nearest_pose, points_of_labels, pose_vectors
from leamfast.faces.regions import region_index

EYES = float(np.linalg.norm(ARCFACE_TEMPLATE[1] - ARCFACE_TEMPLATE[0]))
DEPTH = np.array([0.0, 0.0, 22.0, 6.0, 6.0])  # towards the camera, in pixels of the template


def turned(yaw: float, pitch: float = 0.0) -> np.ndarray:
    """Template points (5, 2) of a head with depth that turns and nods by angles in degrees."""
    centre = ARCFACE_TEMPLATE.mean(axis=0)
    x, y = (ARCFACE_TEMPLATE - centre).T
    yaw, pitch = np.deg2rad([yaw, pitch])
    x, z = x * np.cos(yaw) + DEPTH * np.sin(yaw), DEPTH * np.cos(yaw) - x * np.sin(yaw)
    y = y * np.cos(pitch) - z * np.sin(pitch)
    return np.stack([x, y], axis=1) + centre


def moved(points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return scale * points @ np.array([[cos, sin], [-sin, cos]]) + shift


def test_the_template_itself_has_no_pose():
    np.testing.assert_allclose(pose_vectors(ARCFACE_TEMPLATE[None]), np.zeros((1, 10)), atol=1e-12)


def test_the_vector_is_what_the_alignment_leaves_over():
    points = moved(turned(25, -10), 0.4, 3.0, (50, -7))
    transform = similarity_transform(points, 112)
    left = points @ transform[:, :2].T + transform[:, 2] - ARCFACE_TEMPLATE
    np.testing.assert_allclose(pose_vectors(points[None])[0], left.ravel() / EYES, atol=1e-12)


@pytest.mark.parametrize("axis", ["yaw", "pitch"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_distance_grows_with_the_angle(axis, sign):
    heads = np.stack([turned(**{"yaw": 0.0, axis: sign * angle}) for angle in range(0, 46, 5)])
    vectors = pose_vectors(heads)
    distances = np.linalg.norm(vectors - vectors[0], axis=1)
    assert (np.diff(distances) > 0.005).all()
    # A head that turns to the other side is farther away than one that looks ahead.
    other = pose_vectors(turned(**{"yaw": 0.0, axis: -sign * 20.0})[None])[0]
    assert np.linalg.norm(other - vectors[4]) > 1.5 * distances[4]


def test_rotation_scale_and_place_in_the_picture_change_nothing():
    head = turned(20, 10)
    other = [moved(head, 0.5, 4.0, (300, 20)), moved(head, -3.0, 0.2, (-5, 900))]
    vectors = pose_vectors(np.stack([head, *other]))
    np.testing.assert_allclose(vectors[1:], vectors[[0, 0]], atol=1e-12)
    mirrored = head * [-1, 1]
    assert np.linalg.norm(pose_vectors(mirrored[None])[0] - vectors[0]) > 0.5


def test_rows_without_points_stay_unknown_and_change_no_others():
    points = np.stack([turned(10), turned(20), np.ones((5, 2)), turned(30)])
    points[1, 4, 0] = np.nan
    points = np.concatenate([points, [np.full((5, 2), np.inf)]])
    vectors = pose_vectors(points.astype(np.float32))
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, True, False, True]
    np.testing.assert_allclose(vectors[[0, 3]], pose_vectors(points[[0, 3]]), atol=1e-5)
    assert pose_vectors(np.empty((0, 5, 2))).shape == (0, 10)
    with pytest.raises(ValueError, match=r"shape \(n, 5, 2\), got \(5, 2\)"):
        pose_vectors(points[0])


def test_points_of_a_mask_worked_out_by_hand():
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[0, 1, 1] = labels[0, 2, 2] = region_index("re")
    labels[0, 1, 6] = region_index("le")
    labels[0, 3:5, 4] = region_index("nose")
    labels[0, 5, 2:5] = region_index("ulip")
    labels[0, 6, 3:6] = region_index("imouth")
    labels[0, 7, 3:6] = region_index("llip")
    labels[1] = labels[0]
    labels[1, 1, 6] = region_index("eyeg")
    points = points_of_labels(labels)
    np.testing.assert_array_equal(points[0], [[1.5, 1.5], [6, 1], [4, 3.5], [2, 5], [5, 6.5]])
    assert np.isnan(points[1]).all(axis=1).tolist() == [False, True, False, False, False]
    labels[1, 5:] = 0
    assert np.isnan(points_of_labels(labels)[1]).all(axis=1).tolist() == [False, True, False, True, True]
    assert np.isnan(pose_vectors(points[1:])).all()
    assert points_of_labels(labels[:0]).shape == (0, 5, 2)
    with pytest.raises(ValueError, match=r"shape \(n, S, S\), got \(8, 8\)"):
        points_of_labels(labels[0])


def test_masks_in_blocks_are_masks_at_once(monkeypatch):
    labels = np.random.default_rng(0).integers(0, 19, (7, 12, 12), np.uint8)
    whole = points_of_labels(labels)
    monkeypatch.setattr(pose, "MASK_CELLS", 300)
    np.testing.assert_array_equal(points_of_labels(labels), whole)


@pytest.fixture(scope="module")
def synthetic():
    """Points of masks and true landmarks of pictures of one person, with their yaw and pitch."""
    generator = FaceGenerator(seed=3)
    pictures = [generator.render(1, image, noise=False, blur=False) for image in range(24)]
    extras = [draw_nuisance(3, 1, image)[0] for image in range(24)]
    labels, marks = (np.stack([getattr(p, name) for p in pictures]) for name in ("label", "landmarks"))
    return points_of_labels(labels), marks, np.array([(extra.yaw, extra.pitch) for extra in extras])


def test_points_of_masks_lie_where_the_synthetic_faces_have_them(synthetic):
    points, marks, _ = synthetic
    error = np.linalg.norm(points - marks, axis=2)
    assert (error[:, :2] < 2.5).all()
    assert (error[:, 3:] < 3).all()
    assert (np.abs(points[:, 2, 0] - marks[:, 2, 0]) < 3).all()  # of the whole nose, not of its tip


def test_vectors_of_masks_follow_the_yaw(synthetic):
    points, marks, angles = synthetic
    for vectors, least in ((pose_vectors(marks), 0.99), (pose_vectors(points), 0.9)):
        nose = vectors[:, 4]
        ranks = [np.argsort(np.argsort(values)) for values in (nose, angles[:, 0])]
        assert np.corrcoef(*ranks)[0, 1] > least


def brute(vectors: np.ndarray, identities: np.ndarray) -> list[int]:
    found = []
    for row, vector in enumerate(vectors):
        others = [
            (float(((vectors[k] - vector) ** 2).sum()), k)
            for k in range(len(vectors))
            if k != row and identities[k] == identities[row] and np.isfinite(vectors[k]).all()
        ]
        found.append(min(others)[1] if others and np.isfinite(vector).all() else -1)
    return found


@pytest.mark.parametrize("held", [1, 20, 10**6])
def test_the_nearest_pose_is_that_of_a_loop(monkeypatch, held):
    monkeypatch.setattr(pose, "DISTANCES", held)
    rng = np.random.default_rng(1)
    vectors = rng.integers(-2, 3, (80, 3)).astype(float)  # with ties and equal vectors
    vectors[rng.random(80) < 0.1, 1] = np.nan
    identities = rng.integers(0, 12, 80)
    identities[7] = 99
    assert nearest_pose(vectors, identities).tolist() == brute(vectors, identities)


def test_ties_go_to_the_lower_row_and_nobody_is_no_neighbour():
    vectors = np.array([[0.0], [1.0], [-1.0], [0.0], [5.0], [0.0]])
    identities = np.array([0, 0, 0, -1, 1, -1])
    assert nearest_pose(vectors, identities).tolist() == [1, 0, 0, -1, -1, -1]
    assert nearest_pose(vectors[:0], identities[:0]).dtype == np.int64
    with pytest.raises(ValueError, match=r"got \(6, 1\) and \(5,\)"):
        nearest_pose(vectors, identities[:5])


def test_the_nearest_pose_of_turned_heads_is_the_nearest_angle():
    angles = np.array([0.0, 30.0, 4.0, 22.0, -15.0])
    vectors = pose_vectors(np.stack([turned(angle) for angle in angles]))
    assert nearest_pose(vectors, np.zeros(5, np.int64)).tolist() == [2, 3, 0, 1, 0]

"""Near-duplicates: the first earlier image of the same person, by the cosine."""

import numpy as np
import pytest

from leamfast.engine import near_duplicates as module
from leamfast.engine.near_duplicates import NEAR, near_duplicates, nearly_repeated


def turned(degrees: float) -> list[float]:
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


LIMIT = np.degrees(np.arccos(NEAR))  # 11.48 degrees


def test_numbers_by_hand():
    angles = [0, LIMIT + 1, LIMIT - 1, 0, 90, 0]
    embeddings = np.array([turned(angle) for angle in angles]) * np.array([[1], [5], [0.1], [3], [1], [2]])
    first, cosines = near_duplicates(embeddings, [0, 0, 0, 0, 1, 1])
    # 1 is too far from 0; 2 is near both, and 0 is the first; the last is alone with an orthogonal one.
    assert first.tolist() == [-1, -1, 0, 0, -1, -1]
    assert cosines[2] == pytest.approx(np.cos(np.radians(LIMIT - 1)))
    assert cosines[3] == pytest.approx(1)
    assert np.isnan(cosines[[0, 1, 4, 5]]).all()


def test_other_people_are_never_duplicates_and_blocks_change_nothing(monkeypatch):
    random = np.random.default_rng(0)
    people = np.repeat([0, 1, 2], [40, 1, 90])
    embeddings = random.normal(size=(131, 8)).astype(np.float32)
    for _ in range(60):
        one, other = random.integers(131, size=2)
        embeddings[one] = embeddings[other] + random.normal(0, 0.03, 8)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    wanted = [
        next((j for j in range(i) if people[i] == people[j] and units[i] @ units[j] > NEAR), -1)
        for i in range(131)
    ]
    assert sum(j >= 0 for j in wanted) > 10
    for rows in (1024, 7):
        monkeypatch.setattr(module, "ROWS", rows)
        assert near_duplicates(embeddings, people)[0].tolist() == wanted
        some = np.array([3, 50, 51, 89])  # of the last person, as a slice asks for them
        mine = [other - 41 if other >= 0 else -1 for other in np.array(wanted)[41 + some]]
        assert nearly_repeated(embeddings[41:], some)[0].tolist() == mine


def test_embeddings_that_are_none_have_no_duplicates():
    embeddings = np.array([[0, 0], [0, 0], [np.nan, 1], [np.nan, 1], [np.inf, 0], [np.inf, 0]], np.float32)
    assert near_duplicates(embeddings, [0] * 6)[0].tolist() == [-1] * 6
    assert near_duplicates(np.empty((0, 4), np.float32), [])[0].shape == (0,)

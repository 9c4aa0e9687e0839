"""How well embeddings tell people apart: cosines of pairs, area under the curve, true-accept rate."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from leamfast_bench.recognition import pair_cosines, same_different_auc, true_accept_rate

VECTORS = np.array([(2.0, 0.0), (0.6, 0.8), (0.0, 0.5), (6.0, 8.0)], np.float32)
PEOPLE = np.array([0, 0, 1, 1])


def test_pair_cosines_by_hand():
    same, different = pair_cosines(VECTORS, PEOPLE)
    assert same == pytest.approx([0.6, 0.8])  # (0, 1) and (2, 3)
    assert different == pytest.approx([0.0, 0.6, 0.8, 1.0])  # (0, 2), (0, 3), (1, 2), (1, 3)


def test_pairs_of_people_with_several_pictures_are_all_there():
    vectors = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    people = np.array([0, 1, 2, 2, 1, 0, 0, 2, 3])
    same, different = pair_cosines(vectors, people)
    assert (len(same), len(different)) == (3 + 1 + 3, 36 - 7)  # 3, 2, 3 and 1 pictures


@pytest.mark.parametrize(
    ("false_accepts", "rate"),
    [
        (0.01, 0.0),  # threshold 0.994
        (0.5, 0.5),  # 0.7
        (0.75, 1.0),  # 0.45
        (1.0, 1.0),  # 0
    ],
)
def test_true_accept_rate_by_hand(false_accepts, rate):
    """Of the same person 0.6 and 0.8, above a quantile of 0, 0.6, 0.8 and 1."""
    assert true_accept_rate(VECTORS, PEOPLE, false_accepts) == rate


def test_people_at_right_angles_are_all_accepted():
    vectors = np.eye(4, dtype=np.float32).repeat(3, axis=0)
    assert true_accept_rate(vectors, np.arange(12) // 3) == 1
    assert same_different_auc(vectors, np.arange(12) // 3) == 1


def test_auc_agrees_with_scikit_learn_where_there_are_ties():
    vectors = np.random.default_rng(1).integers(-1, 2, (40, 3)).astype(np.float32)
    vectors = vectors[np.abs(vectors).sum(1) > 0]
    people = np.arange(len(vectors)) % 7
    same, different = pair_cosines(vectors, people)
    assert len(np.unique(np.concatenate([same, different]))) < 60  # of some 700 pairs
    wanted = roc_auc_score(np.repeat([1, 0], [len(same), len(different)]), np.concatenate([same, different]))
    assert same_different_auc(vectors, people) == pytest.approx(wanted, abs=1e-6)

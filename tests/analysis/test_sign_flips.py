"""The paired test that flips the signs of whole identities."""

import itertools

import numpy as np
import pytest

from leamfast.analysis import sign_flips
from leamfast.analysis.sign_flips import EXACT, FLIPS, sign_flip_p


def everyone(sums):
    return np.ones(sums.shape, bool)


def test_three_identities_by_hand():
    # |1 + 2 + 4| = 7 only with all signs alike: 2 of 8. |1 - 2 + 4| = 3: +-7, +-5 and +-3 reach it, 6 of 8.
    sums = np.array([[1.0, 1.0], [2.0, -2.0], [4.0, 4.0]])
    assert sign_flip_p(sums, everyone(sums)).tolist() == [2 / 8, 6 / 8]


@pytest.mark.parametrize("people", [2, 5, EXACT])
def test_small_samples_are_those_of_brute_force(people):
    sums = np.random.default_rng(people).normal(0.5, 1, (people, 4))
    signs = np.array(list(itertools.product([1, -1], repeat=people)))
    wanted = (np.abs(signs @ sums) >= np.abs(sums.sum(axis=0)) - 1e-9).mean(axis=0)
    assert sign_flip_p(sums, everyone(sums)) == pytest.approx(wanted)


def test_drawn_flips_come_close_to_all():
    rng = np.random.default_rng(1)
    sums = rng.normal(0.4, 1, (14, 3))
    signs = np.array(list(itertools.product([1, -1], repeat=14)))
    wanted = (np.abs(signs @ sums) >= np.abs(sums.sum(axis=0)) - 1e-9).mean(axis=0)
    assert sign_flip_p(sums, everyone(sums)) == pytest.approx(wanted, abs=0.02)


def test_the_smallest_p_is_one_in_ten_thousand():
    assert sign_flip_p(np.ones((40, 1)), np.ones((40, 1), bool)) == pytest.approx(1 / (1 + FLIPS))


def test_identities_without_differences_do_not_count():
    sums = np.ones((30, 3))
    there = np.zeros((30, 3), bool)
    there[:3, 0] = there[:1, 1] = True
    found = sign_flip_p(sums, there)
    assert found[0] == 2 / 8
    assert np.isnan(found[1:]).all()


def test_all_columns_meet_the_same_flips_in_any_blocks(monkeypatch):
    sums = np.random.default_rng(3).normal(0.2, 1, (70, 5))
    whole = sign_flip_p(sums, everyone(sums))
    monkeypatch.setattr(sign_flips, "COLUMNS", 2)
    assert np.array_equal(sign_flip_p(sums, everyone(sums)), whole)
    assert sign_flip_p(sums[:, 3:4], everyone(sums[:, 3:4]))[0] == whole[3]


def test_a_true_null_is_rejected_as_often_as_it_should():
    """Identities of very different size with many alike pairs each."""
    rng = np.random.default_rng(4)
    sums = rng.normal(0, 1, (25, 1500)) * rng.integers(1, 60, (25, 1))
    assert (sign_flip_p(sums, everyone(sums)) <= 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_no_difference_at_all_is_no_evidence():
    assert sign_flip_p(np.zeros((4, 1)), np.ones((4, 1), bool)).tolist() == [1.0]
    assert sign_flip_p(np.zeros((20, 1)), np.ones((20, 1), bool)).tolist() == [1.0]

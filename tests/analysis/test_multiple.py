"""Adjusting many p-values at once."""

from dataclasses import dataclass

import numpy as np
import pytest

from leamfast.analysis.multiple import adjusted, holm


@dataclass(frozen=True)
class Line:
    family: str
    p: float
    p_adjusted: float = np.nan


def test_a_known_worked_example():
    # Holm's steps for 0.01, 0.04, 0.03, 0.005: 4 x 0.005, 3 x 0.01, 2 x 0.03, 1 x 0.04 raised to 0.06
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_missing_values_are_no_members():
    assert holm(np.array([np.nan, 0.02, np.nan])) == pytest.approx([np.nan, 0.02, np.nan], nan_ok=True)
    assert holm(np.array([])).shape == (0,)


def test_at_most_one_and_never_smaller_than_before():
    p = np.random.default_rng(0).random(50)
    found = holm(p)
    assert (found >= p).all()
    assert found.max() == 1
    order = np.argsort(p)
    assert (np.diff(found[order]) >= 0).all()


def test_families_do_not_touch_each_other():
    rows = [Line("a", 0.02), Line("b", 0.02), Line("a", 0.03), Line("c", np.nan)]
    found = adjusted(rows, lambda row: row.family)
    assert [row.p_adjusted for row in found] == pytest.approx([0.04, 0.02, 0.04, np.nan], nan_ok=True)
    assert [row.p for row in found[:3]] == [0.02, 0.02, 0.03]

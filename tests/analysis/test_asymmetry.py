"""Left against right."""

import numpy as np
import pytest

from leamfast.analysis.analyze import analyze_run
from leamfast.analysis.asymmetry import PAIRS
from leamfast.faces.regions import REGIONS
from leamfast.store.arrays import NO_LABEL
from tests.analysis.conftest import FACE, planted, sharp


def rows_of(root, threshold=5):
    return {r.pair: r for r in analyze_run(root).asymmetry if (r.map, r.threshold) == ("a", threshold)}


def test_numbers_by_hand(run):
    labels = FACE.copy()
    labels[3, 2] = REGIONS.index("face")  # the right eye has one pixel, the left one two
    shares = planted(4, re=[0.1, 0.2, 0.3, 0.4], le=[0.1, 0.0, 0.1, 0.0], face=0.8)
    rows = rows_of(run([0, 0, 1, 1], sharp(4), labels, shares))
    eye = rows["eye"]
    assert (eye.right, eye.left) == (pytest.approx(0.25), pytest.approx(0.05))
    assert eye.index == pytest.approx(0.2 / 0.3)
    assert eye.area_index == pytest.approx(-1 / 3)
    assert eye.low == pytest.approx((0.15 - 0.05) / (0.15 + 0.05))
    assert eye.high == pytest.approx((0.35 - 0.05) / (0.35 + 0.05))
    assert eye.n == 4
    assert np.isnan(rows["brow"].index)  # none is found
    assert np.isnan([rows["brow"].low, rows["brow"].area_index]).all()


def test_exchanging_left_and_right_turns_the_sign(run):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, len(REGIONS), (6, 8, 8)).astype(np.uint8)
    exchange = np.arange(len(REGIONS), dtype=np.uint8)
    for right, left in PAIRS.values():
        exchange[[REGIONS.index(right), REGIONS.index(left)]] = REGIONS.index(left), REGIONS.index(right)
    maps = rng.random((6, 8, 8))
    people = [0, 0, 1, 1, 2, 2]
    one = rows_of(run(people, maps, labels), 100)
    other = rows_of(run(people, maps, exchange[labels]), 100)
    assert list(one) == ["ear", "brow", "eye"]
    for pair in PAIRS:
        assert other[pair].index == pytest.approx(-one[pair].index)
        assert other[pair].area_index == pytest.approx(-one[pair].area_index)
        assert (other[pair].low, other[pair].high) == pytest.approx((-one[pair].high, -one[pair].low))
        assert (other[pair].right, other[pair].left) == (one[pair].left, one[pair].right)


def test_pairs_that_the_parser_cannot_tell_have_no_row(run):
    known = ("face", "re", "le", "nose", "rb")
    labels = np.where(FACE == 0, NO_LABEL, FACE).astype(np.uint8)
    assert list(rows_of(run([0, 1], np.ones((2, 8, 8)), labels, known=known))) == ["eye"]
    assert rows_of(run([0, 1], np.ones((2, 8, 8)), labels, known=("face", "nose"))) == {}

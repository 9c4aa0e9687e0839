"""How much lies off the face."""

import numpy as np
import pytest

from leamfast.analysis.analyze import analyze_run
from leamfast.analysis.off_face import ON_FACE
from leamfast.faces.regions import REGIONS
from leamfast.store.arrays import NO_LABEL
from tests.analysis.conftest import FACE, planted, sharp


def row_of(root, threshold=5):
    (row,) = (r for r in analyze_run(root).off_face if (r.map, r.threshold) == ("a", threshold))
    return row


def test_numbers_by_hand(run):
    shares = planted(4, background=[0.1, 0.3, 0.5, 0.7], hair=0.05, face=[0.85, 0.65, 0.45, 0.25])
    row = row_of(run([0, 0, 1, 1], sharp(4), FACE, shares))
    assert (row.share, row.area, row.n) == (pytest.approx(0.45), pytest.approx(40 / 64), 4)
    assert row.over_representation == pytest.approx(0.45 / 0.625)
    assert (row.low, row.high) == (pytest.approx(0.25), pytest.approx(0.65))
    assert (row.over_low, row.over_high) == (pytest.approx(0.4), pytest.approx(1.04))


@pytest.mark.parametrize("region", REGIONS)
def test_which_regions_are_the_face(run, region):
    row = row_of(run([0, 1], sharp(2), FACE, planted(2, **{region: 1})))
    assert row.share == pytest.approx(0 if region in ON_FACE else 1)


def test_unknown_pixels_are_off_the_face(run):
    """A flat map in masks that know the face alone lies on it as often as random pixels do."""
    labels = np.where(FACE == 0, NO_LABEL, FACE).astype(np.uint8)
    row = row_of(run([0, 1], np.ones((2, 8, 8)), labels, known=("face", "re", "le", "nose")), 100)
    assert (row.share, row.area) == (pytest.approx(0.625), pytest.approx(0.625))
    assert row.over_representation == pytest.approx(1)


def test_without_skin_nothing_is_said(run):
    labels = np.where(REGIONS.index("nose") == FACE, FACE, NO_LABEL).astype(np.uint8)
    found = analyze_run(run([0, 1], np.ones((2, 8, 8)), labels, known=("nose",)))
    assert found.off_face == []
    assert found.regions


def test_rounded_shares_are_never_negative(run):
    shares = planted(2, face=1 / 3, nose=1 / 3, re=np.float32(1 / 3) + np.float32(1e-7))
    assert row_of(run([0, 1], sharp(2), FACE, shares)).share == 0

"""Deletion and insertion curves and the areas under them."""

import numpy as np
import pytest

from leamfast.analysis.occlusion_tables import occlusion_of
from tests.analysis.occluded import axes_of, planted

STEPS = (0.0, 20.0, 100.0)
AXES = axes_of(controls=("own", "random", "population"), steps=STEPS)


def tables(own, random, identities=(0, 1), references=None):
    """Curves of own and random, (n, 3) each; insertion is deletion from the other end."""
    deletion = np.stack([own, random, np.full_like(own, np.nan)], axis=1)[:, None, :, None]
    others = {"deletion": deletion.astype(np.float32), "insertion": deletion[..., ::-1].astype(np.float32)}
    drop = np.ones((len(own), 1, 1, 3))
    return occlusion_of(planted(np.array(identities), AXES, drop, references, **others))


def test_points_and_areas_by_hand():
    own, random = np.array([[1.0, 0.2, 0.0], [0.8, 0.4, 0.0]]), np.array([[1.0, 0.6, 0.0], [0.8, 0.6, 0.0]])
    found = tables(own, random, references=[3, 1])
    points = {(row.control, row.curve, row.percent): row for row in found.curves}
    assert len(points) == 2 * 2 * 3  # the mean map of all others has no curve
    assert points["own", "deletion", 20].cosine == pytest.approx((3 * 0.2 + 0.4) / 4)
    assert points["own", "deletion", 20].n == 4
    assert points["own", "insertion", 0].cosine == pytest.approx(0)
    assert points["own", "insertion", 100].cosine == pytest.approx(0.95)
    assert points["own", "deletion", 20].low == pytest.approx(0.2)
    assert points["own", "deletion", 20].high == pytest.approx(0.4)
    areas = {(row.control, row.curve): row for row in found.curve_areas}
    # (1 + 0.2) / 2 x 0.2 + 0.2 / 2 x 0.8 and (0.8 + 0.4) / 2 x 0.2 + 0.4 / 2 x 0.8
    assert areas["own", "deletion"].area == pytest.approx((3 * 0.2 + 0.28) / 4)
    assert areas["random", "deletion"].area == pytest.approx((3 * 0.4 + 0.38) / 4)
    assert areas["random", "deletion"].own_minus == pytest.approx((3 * -0.2 - 0.1) / 4)
    assert areas["random", "deletion"].p == pytest.approx(2 / 4)
    assert (areas["own", "deletion"].n, areas["own", "deletion"].people) == (4, 2)
    assert np.isnan([areas["own", "deletion"].own_minus, areas["own", "insertion"].p]).all()


def test_a_family_is_one_curve():
    rng = np.random.default_rng(0)
    found = tables(rng.random((8, 3)), rng.random((8, 3)), np.arange(8))
    tested = [row for row in found.curve_areas if row.p == row.p]
    assert [row.curve for row in tested] == ["deletion", "insertion"]
    assert [row.p_adjusted for row in tested] == [row.p for row in tested]


def test_curves_with_holes_count_nowhere():
    own = np.array([[1.0, np.nan, 0.0], [0.8, 0.4, 0.0], [0.6, 0.2, 0.0]])
    found = tables(own, own, [0, 0, 1], references=[1, 1, 0])
    points = {(row.control, row.curve, row.percent): row for row in found.curves}
    assert points["own", "deletion", 0].cosine == pytest.approx(0.8)
    assert points["own", "deletion", 0].n == 1


def test_a_flat_curve_is_its_own_area():
    own = np.full((2, 3), 0.7)
    assert tables(own, own).curve_areas[0].area == pytest.approx(0.7)


def test_no_curves_no_tables():
    found = occlusion_of(planted([0, 1], axes_of(), np.ones((2, 1, 1))))
    assert found.curves == found.curve_areas == []

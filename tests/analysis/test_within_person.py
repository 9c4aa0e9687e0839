"""An image's own map against maps of other images of the person."""

import numpy as np
import pytest

from leamfast.analysis.occlusion_tables import occlusion_of
from tests.analysis.occluded import axes_of, planted

CONTROLS = ("own", "random", "other-identity", "nearest-pose", "master-1", "master-2", "master")


def rows_of(identities, drops, controls=CONTROLS, **options):
    results = planted(identities, axes_of(controls=controls), np.array(drops)[:, None, None], **options)
    return {row.against: row for row in occlusion_of(results).within_person}


def test_masters_against_the_own_map_by_hand():
    """Two people of three and two images: two others are only there for the first."""
    drops = np.tile([0.4, 0.1, 0.2, 0.3, 0.25, 0.35, 0.3], (5, 1))
    drops[3:, CONTROLS.index("master-2")] = np.nan
    drops[3:, 0] = 0.5
    rows = rows_of([0, 0, 0, 1, 1], drops)
    assert list(rows) == ["own", "other-identity", "nearest-pose", "master-1", "master-2", "master"]
    assert rows["own"].drop == pytest.approx(0.44)
    assert np.isnan(rows["own"].own_minus)
    assert rows["master-1"].own_minus == pytest.approx(0.19)
    two = rows["master-2"]
    assert (two.n, two.people, two.drop) == (3, 1, pytest.approx(0.35))
    assert two.own_minus == pytest.approx(0.05)  # 0.4 - 0.35, without the images of 0.5
    assert np.isnan([two.low, two.p]).all()  # one person


def test_how_many_images_a_map_is_the_mean_of():
    rows = rows_of([0, 0, 0, 1, 1], np.full((5, 7), 0.2), references=[2, 2, 2, 1, 1])
    images = {against: row.images for against, row in rows.items()}
    # of 8 pairs 6 are of images with 2 others and 2 of images with one
    assert images == pytest.approx(
        {"own": 1, "other-identity": 1, "nearest-pose": 1, "master-1": 1, "master-2": 2, "master": 14 / 8}
    )


@pytest.mark.parametrize("policy", ["mean", "mean-map"])
def test_maps_that_may_have_seen_the_image_say_so(policy):
    rows = rows_of([0, 0, 0, 1, 1], np.full((5, 7), 0.2), policy=policy)
    assert {against for against, row in rows.items() if row.saw_image} == {
        "nearest-pose", "master-1", "master-2", "master"
    }  # fmt: skip


def test_maps_of_single_references_leave_those_of_the_image_out():
    rows = rows_of([0, 0, 0, 1, 1], np.full((5, 7), 0.2), policy="each")
    assert len(rows) == 6
    assert not any(row.saw_image for row in rows.values())


def test_the_family_is_all_that_a_map_is_compared_with():
    drops = np.random.default_rng(0).normal(0.3, 0.2, (8, 7))
    rows = rows_of(np.arange(8), drops)
    p = sorted((row.p, row.p_adjusted) for row in rows.values() if row.p == row.p)
    assert len(p) == 5
    assert p[0][1] == pytest.approx(min(1, 5 * p[0][0]))


def test_a_control_that_nobody_has_is_said_to_have_nobody():
    drops = np.full((4, 7), 0.2)
    drops[:, -1] = np.nan
    master = rows_of([0, 0, 1, 1], drops)["master"]
    assert (master.n, master.people) == (0, 0)
    assert np.isnan([master.drop, master.images, master.own_minus]).all()


def test_no_table_without_maps_of_the_same_person():
    assert rows_of([0, 1], np.ones((2, 2)), ("own", "other-identity")) == {}

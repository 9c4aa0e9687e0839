"""Rows of occlusion.csv from planted drops."""

import csv

import numpy as np
import pytest

from leamfast.analysis import occlusion_blocks, occlusion_memory
from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.occlusion import TABLED, OcclusionRow
from leamfast.analysis.occlusion_statistics import paired_statistics
from leamfast.analysis.occlusion_sums import PairedSums
from leamfast.analysis.occlusion_tables import occlusion_of
from leamfast.analysis.tables import write_rows
from leamfast.store.occlusion import CONTROLS, OcclusionArrays
from tests.analysis.occluded import Occluded, arrays_of, axes_of, planted

COLUMNS = (
    "source_model,evaluated_model,map,control,threshold,fill,drop,drop_low,drop_high,n,"
    "people,support,own_minus,own_minus_low,own_minus_high,p,p_adjusted"
)
BOTH = axes_of(controls=("own", "random"))


def two(own, other):
    """Drops of own and one control, (n, 1, 1, 2)."""
    return np.stack([own, other], axis=1)[:, None, None]


def rows_of(results):
    return {(row.map, row.control, row.threshold, row.fill): row for row in occlusion_of(results).occlusion}


def test_columns_come_in_the_order_of_the_contract(tmp_path):
    rows = occlusion_of(planted([0, 1], BOTH, two([0.3, 0.1], [0.1, 0.1]))).occlusion
    with open(write_rows(tmp_path, "occlusion", OcclusionRow, rows)) as file:
        lines = list(csv.reader(file))
    assert ",".join(lines[0]) == COLUMNS
    assert lines[1][:7] == ["m", "m", "a", "own", "1", "black", "0.2"]


def test_means_are_over_pairs_of_image_and_reference():
    """Three images: 1 reference, 3 references, and none."""
    drop = two([0.1, 0.5, np.nan], [0.0, 0.1, np.nan])
    results = planted([0, 1, 1], BOTH, drop, references=[1, 3, 0], support_size=[[[1.0]], [[0.5]], [[9.0]]])
    rows = rows_of(results)
    own, random = rows["a", "own", 1, "black"], rows["a", "random", 1, "black"]
    assert own.drop == pytest.approx((0.1 + 3 * 0.5) / 4)
    assert (own.n, own.people) == (4, 2)
    assert own.support == pytest.approx((1 + 3 * 0.5) / 4)  # of round(1% of 10 x 10) = 1 pixel
    assert random.drop == pytest.approx(0.3 / 4)
    assert random.own_minus == pytest.approx((0.1 + 3 * 0.4) / 4)
    assert random.p == pytest.approx(2 / 4)  # all signs alike: 2 of 4 flips
    assert np.isnan([own.own_minus, own.own_minus_low, own.p, own.p_adjusted]).all()


def test_seeds_are_averaged():
    axes = axes_of(controls=("own", "random"), seeds=(0, 1, 2))
    drop = np.zeros((2, 1, 1, 2, 1, 3))
    drop[:, :, :, 0], drop[:, 0, 0, 1, 0] = 0.5, [0.1, 0.2, 0.6]
    found = rows_of(planted([0, 1], axes, drop))["a", "random", 1, "black"]
    assert found.drop == pytest.approx(0.3)
    assert (found.own_minus, found.own_minus_low) == (pytest.approx(0.2), pytest.approx(0.2))
    assert found.n == 2


def test_rows_without_a_value_are_left_out_column_by_column():
    drop = two([0.4, 0.2, np.nan, 0.6], [0.1, np.nan, 0.5, 0.2])
    rows = rows_of(planted([0, 0, 1, 2], BOTH, drop))
    own, random = rows["a", "own", 1, "black"], rows["a", "random", 1, "black"]
    assert (own.n, own.people, own.drop) == (3, 2, pytest.approx(0.4))
    assert (random.n, random.people, random.drop) == (3, 3, pytest.approx(0.8 / 3))
    assert random.own_minus == pytest.approx(0.35)  # of the two rows that have both


def test_one_identity_has_a_mean_and_no_interval():
    own = rows_of(planted([0, 0], BOTH, two([0.4, 0.2], [0.1, 0.1])))["a", "random", 1, "black"]
    assert own.own_minus == pytest.approx(0.2)
    assert np.isnan([own.drop_low, own.drop_high, own.own_minus_low, own.p, own.p_adjusted]).all()


def test_a_map_that_nobody_has():
    own = rows_of(planted([0, 1], BOTH, two([np.nan, np.nan], [0.1, 0.1])))["a", "own", 1, "black"]
    assert (own.n, own.people) == (0, 0)
    assert np.isnan([own.drop, own.support]).all()


def test_maps_of_the_same_person_stand_elsewhere():
    axes = axes_of(controls=CONTROLS)
    rows = occlusion_of(planted([0, 1], axes, np.ones((2, 1, 1, len(CONTROLS))))).occlusion
    assert [row.control for row in rows] == list(TABLED)
    assert not {"nearest-pose", "master-1", "master"} & set(TABLED)
    assert {"own", "random-block-8", "shifted-on-face", "centre", "population"} < set(TABLED)


def test_the_family_is_all_maps_and_controls_of_one_threshold_and_fill():
    axes = axes_of(maps=("a", "fused"), percents=(1.0, 5.0), controls=("own", "random", "shifted"))
    drop = np.random.default_rng(0).normal(0.3, 0.3, (24, 2, 2, 3))
    rows = occlusion_of(planted(np.arange(24) // 2, axes, drop)).occlusion
    mine = sorted((row.p, row.p_adjusted) for row in rows if row.threshold == 5 and row.p == row.p)
    assert len(mine) == 4
    assert mine[0][1] == pytest.approx(min(1, 4 * mine[0][0]))


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_blocks_of_any_size_say_the_same(monkeypatch, step):
    rng = np.random.default_rng(5)
    axes = axes_of(maps=("a", "b"), percents=(1.0, 5.0), controls=("own", "random", "population"))
    drop = rng.normal(0.2, 0.1, (23, 2, 2, 3))
    drop[rng.random(drop.shape) < 0.1] = np.nan
    identities, references = rng.integers(0, 5, 23), rng.integers(0, 4, 23)
    wanted = occlusion_of(planted(identities, axes, drop, references)).occlusion
    monkeypatch.setattr(occlusion_blocks, "ROWS_AT_ONCE", step)
    monkeypatch.setattr(occlusion_memory, "SUM_BYTES", 1)  # a pass for each map
    results = planted(identities, axes, drop, references)
    found = occlusion_of(results).occlusion
    assert results.reads == 2 * -(-23 // step)
    for one, other in zip(found, wanted, strict=True):
        assert vars(one) == pytest.approx(vars(other), nan_ok=True)


def test_means_against_brute_force():
    rng = np.random.default_rng(6)
    drop, references = rng.normal(0.2, 0.1, (40, 2)), rng.integers(0, 5, 40)
    drop[rng.random(drop.shape) < 0.2] = np.nan
    identities = rng.integers(0, 7, 40)
    row = rows_of(planted(identities, BOTH, two(*drop.T), references))["a", "random", 1, "black"]
    pairs = [(o - c, c) for (o, c), count in zip(drop, references, strict=True) for _ in range(count)]
    wanted = np.array(pairs)
    assert row.drop == pytest.approx(np.nanmean(wanted[:, 1]), rel=1e-6)
    assert row.own_minus == pytest.approx(np.nanmean(wanted[:, 0]), rel=1e-6)


def test_intervals_cover_as_often_as_they_should():
    """People differ, and their images are alike: a bootstrap over images would cover in half of the cases."""
    rng = np.random.default_rng(7)
    people, images, runs = 60, 6, 400
    drops = 0.2 + rng.normal(0, 0.05, (people, 1, runs)) + rng.normal(0, 0.02, (people, images, runs))
    person = np.repeat(np.arange(people), images)
    values = drops.reshape(people * images, 1, runs)
    values = np.concatenate([values, np.full_like(values, 0.2)], axis=1)
    sums = PairedSums(people, values.shape[1:], 0)
    sums.add(person, np.ones(len(person)), values)
    found = paired_statistics(sums, Resampling(person))
    covered = (found.low[0] <= 0.2) & (found.high[0] >= 0.2)
    assert covered.mean() == pytest.approx(0.94, abs=0.03)
    assert ((found.minus_low[1] <= 0) & (found.minus_high[1] >= 0)).mean() == pytest.approx(0.94, abs=0.03)
    assert (found.p[1] <= 0.05).mean() == pytest.approx(0.05, abs=0.03)


@pytest.mark.slow
def test_many_maps_controls_and_people():
    maps = (*(f"tap{number}" for number in range(9)), "fused")
    axes = axes_of(maps, (1, 2, 5, 10, 20), CONTROLS, seeds=(0, 1, 2))
    rows, people = 2000, 200
    drop = np.random.default_rng(0).random((rows, 10, 5, 16, 1, 3), np.float32)
    size = np.ones((rows, 10, 5), np.float32)
    arrays = OcclusionArrays(drop, np.full(rows, 8, np.int32), np.ones(rows, np.float32), size)
    pairs = {(one, other): (axes, arrays) for one in "mo" for other in "mo"}
    sex = ["female" if number % 3 else "male" for number in range(people)]
    results = Occluded(np.arange(rows) // 10, pairs, identity={"sex": sex})
    found = occlusion_of(results)
    assert found.count("occlusion") == 4 * 10 * 5 * len(TABLED)
    assert found.count("specificity_identities") == 2 * 10 * people
    assert found.count("groups") == 4 * 10 * 5 * 2


def test_nothing_occluded():
    assert occlusion_of(Occluded([0, 1], {})) is None


def test_two_models_stand_one_below_the_other():
    arrays = arrays_of(BOTH, two([0.3, 0.1], [0.1, 0.1]))
    pairs = {(one, other): (BOTH, arrays) for one in "mo" for other in "mo"}
    rows = occlusion_of(Occluded([0, 1], pairs)).occlusion
    assert [(row.evaluated_model, row.source_model) for row in rows[::2]] == list(pairs)

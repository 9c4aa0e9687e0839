"""Groups of people and of images."""

import itertools

import numpy as np
import pytest

from leamfast.analysis.occlusion_tables import occlusion_of
from leamfast.analysis.relabelling import relabelling_p
from leamfast.analysis.strata import group_columns, metadata_columns, strata_of
from leamfast.errors import RequestError
from tests.analysis.occluded import axes_of, planted

SEX = ["female", "female", "male", "male"]


def results_of(drops, identities, other=None, references=None, **metadata):
    """Own drops of one map, with another person's where they are given."""
    controls = ("own",) if other is None else ("own", "other-identity")
    values = np.stack([drops] if other is None else [drops, other], axis=1)[:, None, None]
    return planted(np.array(identities), axes_of(controls=controls), values, references, **metadata)


def by_group(results, *columns):
    return {row.group: row for row in occlusion_of(results, groups=[columns]).groups}


def test_two_groups_by_hand():
    drops, other = np.array([0.1, 0.3, 0.5, 0.2, 0.2]), np.array([0.0, 0.1, 0.1, 0.2, 0.1])
    results = results_of(drops, [0, 0, 1, 2, 3], other, [1, 1, 2, 1, 1], identity={"sex": SEX})
    found = by_group(results, "sex")
    female, male = found["female"], found["male"]
    assert (female.drop, male.drop) == pytest.approx((1.4 / 4, 0.2))
    assert (female.n, female.people, male.n, male.people) == (4, 2, 2, 2)
    assert (female.rest, female.difference) == pytest.approx((0.2, 0.15))
    assert (male.rest, male.difference) == pytest.approx((0.35, -0.15))
    assert female.specificity == pytest.approx((0.1 + 0.2 + 2 * 0.4) / 4)
    # means of identities 0.2, 0.5 and 0.2, 0.2; their variances 0.045 and 0
    assert female.d == pytest.approx(0.15 / np.sqrt(0.0225))
    assert (female.drop_low, female.drop_high) == pytest.approx((0.2, 0.5))
    assert (female.few, male.few, female.note) == (True, True, "")
    assert (female.columns, female.map, female.threshold, female.fill) == ("sex", "a", 1, "black")


def test_groups_are_dealt_anew_to_whole_identities():
    """One of the 6 ways to deal two of four identities is as planted, one the other way round."""
    results = results_of(np.array([0.5, 0.4, 0.1, 0.2]), [0, 1, 2, 3], identity={"sex": SEX})
    found = by_group(results, "sex")
    assert found["female"].p == pytest.approx(2 / 6, abs=0.02)
    assert found["female"].p == found["male"].p
    assert found["male"].p_adjusted == pytest.approx(2 * found["male"].p)


def test_dealing_comes_close_to_brute_force():
    rng = np.random.default_rng(0)
    count = rng.integers(1, 5, (8, 2)).astype(float)
    total = rng.normal(0.3, 0.2, (8, 2)) * count
    label = np.array([0, 0, 0, 1, 1, 1, 1, 2])

    def difference(label, group):
        mine = label == group
        inside, outside = (total[w].sum(axis=0) / count[w].sum(axis=0) for w in (mine, ~mine))
        return np.abs(inside - outside)

    deals = {deal for deal in itertools.permutations(label)}
    found = relabelling_p(total, count, label, 3)
    for group in range(3):
        reached = [difference(np.array(deal), group) >= difference(label, group) - 1e-12 for deal in deals]
        assert found[group] == pytest.approx(np.mean(reached, axis=0), abs=0.02)


def test_a_true_null_is_rejected_as_often_as_it_should():
    rng = np.random.default_rng(1)
    count = rng.integers(1, 9, (30, 600)).astype(float)
    total = rng.normal(0.3, 0.1, (30, 600)) * count
    p = relabelling_p(total, count, np.repeat([0, 1], [12, 18]), 2)
    assert (p[0] <= 0.05).mean() == pytest.approx(0.05, abs=0.025)


def test_a_column_that_varies_within_people_is_tested_within_them():
    """Three people with images of both poses, one with frontal ones alone, who is not in the test."""
    drops = np.array([0.5, 0.4, 0.6, 0.3, 0.9, 0.5, 0.1])
    pose = ["front", "side", "front", "side", "front", "side", "front"]
    found = by_group(results_of(drops, [0, 0, 1, 1, 2, 2, 3], image={"pose": pose}), "pose")
    assert (found["front"].people, found["side"].people) == (4, 3)
    assert found["front"].difference == pytest.approx(2.1 / 4 - 0.4)
    assert found["front"].p == found["side"].p == 2 / 8  # 0.1, 0.3 and 0.4 within people
    assert np.isfinite([found["front"].difference_low, found["front"].difference_high]).all()


def test_a_crossing():
    results = results_of(
        np.array([0.1, 0.2, 0.3, 0.4]), [0, 1, 2, 3],
        identity={"sex": SEX, "age": ["old", "young", "old", ""]},
    )  # fmt: skip
    found = by_group(results, "sex", "age")
    assert list(found) == ["female x old", "female x young", "male x old"]
    assert found["female x old"].columns == "sex x age"
    # the person of unknown age is in no group, and not in the rest
    assert found["female x old"].rest == pytest.approx(0.25)


def test_groups_of_under_ten_people_are_marked_and_shown():
    rng = np.random.default_rng(2)
    sex = ["female"] * 9 + ["male"] * 10
    found = by_group(results_of(rng.random(19), np.arange(19), identity={"sex": sex}), "sex")
    assert (found["female"].few, found["male"].few) == (True, False)
    assert np.isfinite([found["female"].drop, found["female"].difference_low, found["female"].p]).all()


def test_one_value_only():
    results = results_of(np.array([0.1, 0.2]), [0, 1], identity={"sex": ["female", "female"]})
    found = by_group(results, "sex")["female"]
    assert found.note == "one value only"
    assert found.drop == pytest.approx(0.15)
    assert np.isnan([found.rest, found.difference, found.difference_low, found.d, found.p]).all()
    assert np.isnan(found.p_adjusted)


def test_a_group_without_a_drop():
    found = by_group(
        results_of(np.array([np.nan, np.nan, 0.2, 0.3]), np.arange(4), identity={"sex": SEX}), "sex"
    )
    assert (found["female"].n, found["female"].people) == (0, 0)
    assert np.isnan([found["female"].drop, found["female"].p, found["male"].rest]).all()
    assert found["male"].drop == pytest.approx(0.25)


def test_intervals_of_a_planted_difference_cover_it():
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(60):
        people = np.repeat([0.3, 0.2], 30) + rng.normal(0, 0.05, 60)
        drops = np.repeat(people, 2) + rng.normal(0, 0.01, 120)
        results = results_of(drops, np.repeat(np.arange(60), 2), identity={"sex": ["f"] * 30 + ["m"] * 30})
        row = by_group(results, "sex")["f"]
        assert row.p < 0.01, seed
        covered += row.difference_low <= 0.1 <= row.difference_high
    assert covered >= 50


def test_columns_that_there_are():
    values = [str(number) for number in range(13)]
    results = results_of(
        np.ones(13), np.arange(13), image={"pose": values, "sex": ["f"] * 13},
        identity={"sex": ["f", "m"] * 6 + [""], "many": values, "one": ["a"] * 13},
    )  # fmt: skip
    assert metadata_columns(results) == ("pose", "sex", "many", "one")
    assert group_columns(results) == [("sex",)]


def test_an_unknown_column_names_those_that_there_are():
    results = results_of(np.ones(4), np.arange(4), identity={"sex": SEX})
    with pytest.raises(RequestError, match="got gender: there are sex$"):
        strata_of(results, ("sex", "gender"))
    with pytest.raises(RequestError, match="got name: there are sex"):
        strata_of(results, ("name",))
    with pytest.raises(RequestError, match="got none: the run has no metadata columns"):
        strata_of(results_of(np.ones(2), [0, 1]), ())


def test_columns_of_numbers_are_refused():
    rows = 201
    results = results_of(np.ones(rows), np.arange(rows), image={"yaw": [f"{n / 7}" for n in range(rows)]})
    with pytest.raises(RequestError, match="groups must be at most 200, yaw has 201 values"):
        occlusion_of(results, groups=[("yaw",)])


def test_groups_of_the_whole_are_those_of_the_tables():
    results = results_of(np.array([0.5, 0.4, 0.1, 0.2]), [0, 1, 2, 3], identity={"sex": SEX})
    assert [row.group for row in occlusion_of(results).groups] == ["female", "male"]
    assert occlusion_of(results, groups=[]).groups == []
    asked = occlusion_of(results, groups=[("sex",), ("sex", "sex")]).groups
    assert [row.columns for row in asked] == ["sex", "sex", "sex x sex", "sex x sex"]

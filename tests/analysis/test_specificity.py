"""Specificity of maps, beside BC, and identities ranked."""

import numpy as np
import pytest

from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.occlusion_tables import occlusion_of
from leamfast.store.arrays import THRESHOLDS
from leamfast.store.pairs import EMD_KINDS, PairTable
from tests.analysis.occluded import axes_of, planted

CONTROLS = ("own", "random", "shifted", "other-identity", "population")
IDENTITIES = np.array([0, 0, 1, 1, 2, 2])
DROPS = np.array([  # own, random, shifted, other-identity, population
    [0.5, 0.1, 0.1, 0.2, 0.1], [0.5, 0.1, 0.1, 0.2, 0.1], [0.4, 0.1, 0.1, 0.3, 0.1],
    [0.4, 0.1, 0.1, 0.3, 0.1], [0.3, 0.1, 0.1, 0.4, 0.1], [0.6, 0.1, 0.1, 0.4, 0.1],
])  # fmt: skip


def table(kind, pairs, bc):
    """Pairs whose BC with the prior removed is `bc` at 1%; at the other percents half of it."""
    i, j = np.array(pairs).T
    values = np.full((len(i), len(THRESHOLDS), 2), 0.9)
    values[:, :, 1] = np.array(bc)[:, None] / 2
    values[:, 0, 1] = bc
    none, missing = np.full(values.shape, np.nan), np.full(len(i), -1)
    kinds = np.full(values.shape, EMD_KINDS.index("none"), np.uint8)
    grid = np.ones((len(THRESHOLDS), 2), int)
    return PairTable("m", "a", kind, i, j, missing, missing, values, none, none, none, kinds, grid)


SAME = table("C", [(0, 1), (2, 3), (4, 5)], [0.6, 0.5, 0.1])
OTHER = table("D", [(0, 2), (1, 4), (3, 5)], [0.3, 0.2, 0.1])


def of(drops=DROPS, controls=CONTROLS, percents=(1.0, 3.0), **options):
    drops = np.broadcast_to(np.asarray(drops)[:, None, None], (len(drops), 1, len(percents), len(controls)))
    axes = axes_of(percents=percents, controls=controls)
    return occlusion_of(planted(IDENTITIES, axes, drops, **options))


def test_differences_and_the_specific_part():
    row = of().specificity[0]
    assert (row.model, row.map, row.threshold, row.fill, row.n, row.people) == ("m", "a", 1, "black", 6, 3)
    assert row.drop == pytest.approx(0.45)
    assert (row.random, row.shifted, row.other_identity, row.population) == pytest.approx(
        (0.1, 0.1, 0.3, 0.1)
    )
    assert row.specificity == pytest.approx(0.15)
    assert row.specificity_low < row.specificity < row.specificity_high
    assert row.minus_population == pytest.approx(0.35)
    # prior is the dearer one, another person's map: of 0.35 over chance it leaves 0.15
    assert row.specific_part == pytest.approx(0.15 / 0.35)
    assert row.support == pytest.approx(1)


def test_the_interval_of_the_part_resamples_people():
    """Prior and chance are those of the whole sample, also in draws in which another control costs more."""
    row = of().specificity[0]
    sums = np.array([[0.6, 0.8], [0.2, 0.6], [0.1, 0.7]])  # own - other-identity and own - random, two each
    resampling = Resampling(IDENTITIES)
    top, bottom = resampling.draw(sums).T
    assert (row.specific_part_low, row.specific_part_high) == pytest.approx(
        tuple(np.quantile(top / bottom, [0.025, 0.975]))
    )
    assert row.specific_part_low < row.specific_part < row.specific_part_high


def test_draws_without_a_gain_over_chance_leave_the_part_out():
    drops = DROPS.copy()
    drops[:2, 1] = 0.9  # person 0 gains nothing: -0.4 against 0.3 and 0.35
    row = of(drops).specificity[0]
    assert row.specific_part == pytest.approx(0.15 / ((-0.4 + 0.3 + 0.35) / 3))
    # Of person 0 alone, or twice, there is no gain, and the quotient would be below 0.
    assert 0 < row.specific_part_low <= row.specific_part <= row.specific_part_high


def test_one_person_has_a_part_without_an_interval():
    axes = axes_of(controls=CONTROLS)
    (row,) = occlusion_of(planted([0, 0], axes, DROPS[:2, None, None])).specificity
    assert row.specific_part == pytest.approx(0.75)
    assert np.isnan([row.specific_part_low, row.specific_part_high]).all()


def test_small_supports_stand_in_the_table():
    row = of(support_size=np.full((6, 1, 2), 0.5)).specificity[0]  # of the one pixel asked for
    assert row.support == pytest.approx(0.5)


def test_bc_stands_beside_at_percents_at_which_maps_were_compared():
    one, three = of(compared={("m", "a"): [SAME, OTHER]}).specificity
    assert (one.bc_same, one.bc_other, one.bc_difference) == pytest.approx((0.4, 0.2, 0.2))
    assert one.bc_difference_low <= 0.2 <= one.bc_difference_high
    assert np.isnan([three.bc_same, three.bc_difference, three.bc_difference_low]).all()
    five = of(percents=(5.0,), compared={("m", "a"): [SAME, OTHER]}).specificity[0]
    assert five.bc_same == pytest.approx(0.2)


def test_without_pairs_of_two_people_there_is_half_of_it():
    row = of(compared={("m", "a"): [SAME]}).specificity[0]
    assert row.bc_same == pytest.approx(0.4)
    assert np.isnan([row.bc_other, row.bc_difference, row.bc_difference_low]).all()


def test_identities_are_ranked():
    ranks = of(compared={("m", "a"): [SAME, OTHER]}).identities
    assert len(ranks) == 1  # one map, at the smallest percent
    rows = list(ranks[0].rows())
    assert [(row.rank, row.identity, row.images) for row in rows] == [
        (1, "person 0", 2), (2, "person 1", 2), (3, "person 2", 2)
    ]  # fmt: skip
    assert [row.specificity for row in rows] == pytest.approx([0.3, 0.1, 0.05])
    assert [row.drop for row in rows] == pytest.approx([0.5, 0.4, 0.45])
    assert [row.other_identity for row in rows] == pytest.approx([0.2, 0.3, 0.4])
    assert [row.bc_same for row in rows] == pytest.approx([0.6, 0.5, 0.1])
    assert [row.bc_other for row in rows] == pytest.approx([0.25, 0.2, 0.15])
    assert rows[0].bc_difference == pytest.approx(0.35)


def test_identities_without_a_drop_are_left_out_and_without_a_control_not_ranked():
    drops = DROPS.copy()
    drops[:2], drops[2:4, 3] = np.nan, np.nan
    rows = list(of(drops).identities[0].rows())
    assert [(row.identity, row.rank) for row in rows] == [("person 2", 1), ("person 1", None)]
    assert np.isnan(rows[1].specificity)


def test_missing_controls_leave_their_columns_empty():
    found = of(DROPS[:, :2], CONTROLS[:2])
    row = found.specificity[0]
    assert row.minus_random == pytest.approx(0.35)
    assert np.isnan([row.shifted, row.specificity, row.minus_population_low, row.specific_part]).all()
    assert found.identities == []


def test_no_part_of_what_is_not_above_chance():
    drops = np.tile([0.1, 0.2, 0.05, 0.1, 0.1], (6, 1))
    assert np.isnan(of(drops).specificity[0].specific_part)

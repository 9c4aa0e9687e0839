"""The verdict of each model and map, from planted drops."""

import re
from dataclasses import replace

import numpy as np
import pytest

from leamfast.analysis.occlusion_tables import occlusion_of
from leamfast.analysis.specificity import SpecificityRow
from leamfast.analysis.specificity_verdicts import specificity_verdicts
from tests.analysis.occluded import axes_of, planted

CONTROLS = ("own", "random", "shifted", "other-identity", "population")


def verdict(means, people=20, controls=CONTROLS, spread=0.01):
    """Verdict of planted mean drops of the controls; all images of a person shift by the same."""
    rng = np.random.default_rng(0)
    identities = np.repeat(np.arange(people), 3)
    noise = rng.normal(0, spread, (people, len(controls)))
    drops = np.array(means) + (noise - noise.mean(axis=0))[identities]
    results = planted(identities, axes_of(controls=controls), drops[:, None, None])
    (found,) = occlusion_of(results).verdicts
    return found


def row(**changes):
    """A person-specific map."""
    values = {
        "drop": 0.5, "drop_low": 0.45, "drop_high": 0.55, "random": 0.1, "shifted": 0.1,
        "other_identity": 0.2, "population": 0.2, "specific_part": 0.75, "n": 60, "people": 20,
        "specific_part_low": 0.7, "specific_part_high": 0.8, "support": 1.0,
    }  # fmt: skip
    for name, minus in (("specificity", 0.3), ("minus_random", 0.4), ("minus_shifted", 0.4),
                        ("minus_population", 0.3)):  # fmt: skip
        values |= {name: minus, f"{name}_low": minus - 0.1, f"{name}_high": minus + 0.1}
    bc = dict.fromkeys(("same", "other", "difference", "difference_low", "difference_high"), np.nan)
    found = SpecificityRow("m", "a", 1.0, "black", **values, **{f"bc_{name}": v for name, v in bc.items()})
    return replace(found, **changes)


def said(**changes):
    (found,) = specificity_verdicts([row(**changes)])
    return found


def test_person_specific():
    found = verdict((0.3, 0.05, 0.06, 0.1, 0.12))
    assert found.verdict == "person-specific"
    # of 0.24 over chance, 0.18 over the prior
    assert re.search(r"75% \[7\d%, 7\d%\] of what it gains over chance is not the position", found.sentence)
    assert "another person's map keeps 33% of the drop" in found.sentence
    assert found.sentence.startswith("m a at 1% black: person-specific")
    assert "over 60 pairs of 20 people" in found.sentence
    assert "other-identity 0.100, own - other-identity 0.200 [0.19" in found.sentence
    assert "under 10" not in found.sentence


def test_mostly_position_prior():
    found = verdict((0.166, 0.068, 0.04, 0.141, 0.13))
    assert found.verdict == "mostly position prior"
    assert "another person's map keeps 85% of the drop" in found.sentence


def test_a_prior_that_costs_more_than_the_map():
    found = verdict((0.189, 0.068, 0.033, 0.171, 0.305))
    assert found.verdict == "mostly position prior"
    assert "it costs more than chance, but no more than the position prior does;" in found.sentence


def test_the_mean_of_all_decides_as_another_map_does():
    assert verdict((0.3, 0.05, 0.06, 0.1, 0.28)).verdict == "mostly position prior"


@pytest.mark.parametrize(
    ("random", "shifted", "sentence"),
    [
        (
            0.068,
            0.012,
            "it costs more than its own shape moved at random but costs less than scattered pixels",
        ),
        (
            0.012,
            0.068,
            "it costs more than scattered pixels but costs less than its own shape moved at random",
        ),
        (
            0.0384,
            0.0384,
            "it is not shown to cost more than scattered pixels and is not shown to cost more than",
        ),
        (0.068, 0.038, "costs less than scattered pixels and is not shown to cost more than its own shape"),
    ],
)
def test_no_better_than_random(random, shifted, sentence):
    found = verdict((0.038, random, shifted, 0.01, 0.01), spread=0.005)
    assert found.verdict == "no better than random"
    assert sentence in found.sentence
    assert f"random {random:.3f}, own - random " in found.sentence


def test_of_a_drop_that_may_be_nothing_there_are_no_parts():
    found = verdict((0.0, 0.05, 0.06, 0.01, 0.01))
    assert found.verdict == "no better than random"
    assert "keeps" not in found.sentence


def test_undecided():
    """Most of the gain is its own on average, but people differ so much that 0 is in the interval."""
    rng = np.random.default_rng(1)
    drops = np.tile([0.3, 0.05, 0.05, 0.1, 0.1], (12, 1))
    drops[:, 3] += np.where(np.arange(12) < 3, 0.7, -0.2) + rng.normal(0, 0.001, 12)
    results = planted(np.arange(12), axes_of(controls=CONTROLS), drops[:, None, None])
    tables = occlusion_of(results)
    assert tables.specificity[0].specific_part > 0.5
    assert tables.specificity[0].specificity_low < 0
    assert tables.verdicts[0].verdict == "undecided"
    assert "is not shown to cost more than another person's map" in tables.verdicts[0].sentence


def part(value, low, high):
    return {"specific_part": value, "specific_part_low": low, "specific_part_high": high}


def test_half_is_enough_and_less_is_not():
    assert said(**part(0.6, 0.5, 0.8)).verdict == "person-specific"
    assert said(**part(0.4, 0.3, 0.499)).verdict == "mostly position prior"


@pytest.mark.parametrize(("value", "low", "high"), [(0.45, 0.2, 0.7), (0.55, 0.2, 0.7), (0.45, 0.3, 0.5)])
def test_a_part_whose_interval_holds_one_half_decides_nothing(value, low, high):
    found = said(**part(value, low, high))
    assert found.verdict == "undecided"
    assert f"{value:.0%} [{low:.0%}, {high:.0%}] of what it gains" in found.sentence
    assert "but the interval of this part holds one half;" in found.sentence


@pytest.mark.parametrize("control", ["specificity", "minus_population"])
def test_less_than_half_and_no_more_than_the_prior_is_the_prior(control):
    found = said(**part(0.45, -0.2, 0.9), **{f"{control}_low": 0.0})
    assert found.verdict == "mostly position prior"
    assert "only 45% [-20%, 90%] of what it gains" in found.sentence
    more = said(**part(0.6, 0.55, 0.9), **{f"{control}_low": 0.0})
    assert more.verdict == "undecided"
    assert "holds one half" not in more.sentence


def test_a_part_without_an_interval_decides_nothing():
    found = said(**part(0.75, np.nan, np.nan))
    assert found.verdict == "undecided"
    assert (
        "75% of what it gains over chance is not the position prior's, but this part has no" in found.sentence
    )


def test_few_people_who_differ_leave_the_part_undecided():
    """Every person has more than the prior, and in some of them it is most of the gain."""
    drops = np.tile([0.3, 0.05, 0.05, 0.1, 0.1], (12, 1))
    drops[:, 3] += np.tile([0.02, 0.18], 6)  # parts of 0.72 and 0.08
    tables = occlusion_of(planted(np.arange(12), axes_of(controls=CONTROLS), drops[:, None, None]))
    (row,) = tables.specificity
    assert row.specific_part == pytest.approx(0.4)
    assert row.specific_part_low < 0.4 < 0.5 < row.specific_part_high
    assert min(row.specificity_low, row.minus_population_low) > 0
    assert tables.verdicts[0].verdict == "undecided"
    assert "holds one half" in tables.verdicts[0].sentence


def test_the_photos():
    """Drops at 1% of conv1.0 of MobileFaceNet on photos of 13 people."""
    found = verdict((0.163, 0.068, 0.042, 0.148, 0.137), people=13, spread=0.02)
    assert found.verdict == "mostly position prior"


def test_the_kept_part_is_of_the_pairs_that_have_both():
    """Those without another person's map cost ten times as much, which says nothing of what it keeps."""
    drops = np.tile([0.3, 0.05, 0.05, 0.15, 0.1], (24, 1))
    drops[::2] *= 10 / 3
    drops[::2, 3] = np.nan
    (found,) = occlusion_of(
        planted(np.arange(24) // 2, axes_of(controls=CONTROLS), drops[:, None, None])
    ).verdicts
    assert "drop 0.650" in found.sentence
    assert "another person's map keeps 50% of the drop" in found.sentence


def test_a_support_of_too_few_pixels_is_mentioned():
    words = "its support has only 42% of the pixels asked for, scattered pixels all of them"
    assert words in said(support=0.42).sentence
    assert "asked for" not in said(support=0.95).sentence


def test_not_tested_says_why():
    found = verdict((0.3, 0.05, 0.06, 0.1), controls=CONTROLS[:4])
    assert found.verdict == "not tested"
    assert "no drop of the control population" in found.sentence
    assert "no image has a drop of this map" in verdict((np.nan, 0.05, 0.06, 0.1, 0.1)).sentence
    alone = verdict((0.3, 0.05, 0.06, 0.1, 0.1), people=1)
    assert alone.verdict == "not tested"
    assert "only 1 person" in alone.sentence
    missing = said(specificity_low=np.nan)
    assert missing.verdict == "not tested"
    assert "own - other-identity has no interval" in missing.sentence


def test_few_people_are_marked_and_not_hidden():
    found = verdict((0.3, 0.05, 0.06, 0.1, 0.12), people=9)
    assert found.verdict == "person-specific"
    assert "only 9 people, under 10: intervals are too narrow" in found.sentence
    assert "under 10" not in verdict((0.3, 0.05, 0.06, 0.1, 0.12), people=10).sentence


@pytest.mark.parametrize(
    ("value", "low", "words"),
    [
        (0.75, 0.01, "BC says so too"),
        (0.75, -0.01, "BC does not say so"),
        (0.2, 0.01, "BC does not say so"),
        (0.2, -0.01, "BC says so too"),
    ],
)
def test_bc_stands_beside(value, low, words):
    found = said(
        **part(value, value - 0.1, value + 0.1), bc_same=0.4, bc_other=0.3, bc_difference=0.1,
        bc_difference_low=low, bc_difference_high=0.2,
    )  # fmt: skip
    assert "BC is 0.400 within a person and 0.300 between two" in found.sentence
    assert words in found.sentence


def test_bc_decides_nothing():
    beside = said(bc_same=0.1, bc_other=0.3, bc_difference=-0.2, bc_difference_low=-0.3)
    assert beside.verdict == "person-specific"
    assert "without an interval" in said(bc_same=0.1, bc_other=0.3, bc_difference=-0.2).sentence
    assert "BC" not in said().sentence


def test_the_smallest_percent_and_the_first_fill_decide():
    rows = [
        row(threshold=5.0, **part(0.1, 0, 0.2)), row(threshold=1.0, fill="mean"),
        row(threshold=1.0, fill="black", **part(0.1, 0, 0.2)),
    ]  # fmt: skip
    (found,) = specificity_verdicts(rows)
    assert (found.threshold, found.fill, found.verdict) == (1.0, "mean", "person-specific")

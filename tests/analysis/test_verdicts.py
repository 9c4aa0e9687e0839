"""The paper's ranges beside ours, and what is said of each model and map."""

from dataclasses import replace

import numpy as np
import pytest

from leamfast.analysis.paper_ranges import paper_rows, reached
from leamfast.analysis.similarity import SimilarityRow
from leamfast.analysis.verdicts import FEWEST_PEOPLE, verdicts


def row(kind, mean, low=None, high=None, threshold=100, prior="kept", **changes):
    return replace(
        SimilarityRow(
            "m", "a", kind, threshold, prior, "bc", mean, mean if low is None else low,
            mean if high is None else high, 500, 0.1, 0.1 / mean, 50, 0, 0, 0, np.nan, np.nan,
        ),
        **changes,
    )  # fmt: skip


def c_row(mean=0.09, difference=0.03, low=0.02, high=0.04, area=0.63, p=0.001, **changes):
    return row(
        "C", mean, mean - 0.01, mean + 0.01, difference=difference, difference_low=low, difference_high=high,
        auc=area, auc_low=area - 0.02, auc_high=area + 0.02, d=0.4, p=p, **changes,
    )  # fmt: skip


D = row("D", 0.06, 0.05, 0.07)
A = row("A", 0.32, 0.30, 0.34)
B = row("B", 0.2)


def said(*rows):
    (verdict,) = verdicts(rows)
    assert (verdict.model, verdict.map) == ("m", "a")
    assert verdict.sentence.startswith("m a: ")
    assert verdict.sentence.endswith(".")
    return verdict.supported, verdict.sentence


def test_maps_of_one_person_are_more_alike():
    supported, sentence = said(A, B, c_row(), D, c_row(0.05, 0.001, -0.01, 0.02, prior="removed"),
                               replace(D, prior="removed"))  # fmt: skip
    assert supported == "more alike"
    assert sentence == (
        "m a: maps of one person resemble each other more than those of two people, single pairs slightly "
        "come apart (BC C 0.09 [0.08, 0.10] against D 0.06 [0.05, 0.07], n 500 and 500, difference 0.030 "
        "[0.020, 0.040], AUC 0.63 [0.61, 0.65], d 0.40, p 0.001); with the position prior removed none is "
        "shown (0.001 [-0.010, 0.020]); the difference is small beside that to two references of one image, "
        "0.32 [0.30, 0.34] (A); the paper's 0.32-0.57 is reached by A at 100% with the prior kept "
        "(0.32, D is in 0.04-0.13)."
    )


@pytest.mark.parametrize(
    ("c", "supported", "words"),
    [
        (c_row(mean=0.07), "more alike", "the intervals of the two means overlap"),
        (c_row(p=np.nan), "more alike", "no p, pairs D are too thin a sample"),
        (c_row(area=0.53), "more alike", "hardly come apart"),
        (c_row(area=0.70), "more alike", "moderately come apart"),
        (c_row(area=0.95), "more alike", "clearly come apart"),
        (c_row(low=-0.01), "no difference shown", "holds 0"),
        (c_row(low=0.0), "no difference shown", "holds 0"),
        (c_row(p=0.2), "no difference shown", "permutation test has p over 0.05"),
        (c_row(difference=-0.03, low=-0.04, high=-0.01), "less alike", "less than those of two people"),
        (c_row(low=np.nan, high=np.nan), "nothing", "the difference has no interval"),
        (
            c_row(people=FEWEST_PEOPLE - 1),
            "nothing",
            f"too few people to conclude anything ({FEWEST_PEOPLE - 1} ",
        ),
    ],
)
def test_what_the_numbers_support(c, supported, words):
    got, sentence = said(c, D)
    assert got == supported
    assert words in sentence


def test_missing_kinds_are_named():
    assert "no pairs of kind D of whole maps" in said(c_row())[1]
    assert "no pairs of kind C of whole maps" in said(D)[1]
    assert "no pairs of kind C or D of whole maps" in said(A)[1]
    assert said(A)[0] == "nothing"
    assert "kind A and B missing: a run with --references each has them" in said(c_row(), D)[1]
    assert "kind B missing" in said(A, c_row(), D)[1]
    assert "missing" not in said(A, B, c_row(), D)[1]
    # Rows without a pair, of another threshold or of another model are none.
    others = row("C", 0.5, n=0), row("C", 0.5, threshold=20), row("cross", 0.5, other_model="n")
    assert "no pairs of kind C of whole maps" in said(*others, D)[1]


@pytest.mark.parametrize(
    ("a", "words"),
    [
        (0.05, "no more than two people"),
        (0.06, "no more than two people"),
        (0.08, "no more than two images of one person"),
        (0.11, "C is 60% of the way from D to A"),
        (0.5, "small beside"),
    ],
)
def test_beside_two_references_of_one_image(a, words):
    assert words in said(row("A", a), B, c_row(), D)[1]


@pytest.mark.parametrize(
    ("removed", "words"),
    [
        ([], "nothing was compared"),
        ([c_row(prior="removed"), replace(D, prior="removed")], "a difference stays (0.030"),
        ([c_row(low=-0.1, high=-0.01, prior="removed"), replace(D, prior="removed")], "turns round"),
        ([c_row(people=3, prior="removed"), replace(D, prior="removed")], "too few people are left"),
        ([c_row(low=np.nan, prior="removed"), replace(D, prior="removed")], "has no interval"),
    ],
)
def test_position_prior(removed, words):
    assert words in said(c_row(), D, *removed)[1]


def test_one_verdict_a_model_and_map():
    rows = [c_row(), D, replace(D, map="b"), replace(D, model="n")]
    assert [(v.model, v.map) for v in verdicts(rows)] == [("m", "a"), ("m", "b"), ("n", "a")]
    assert verdicts([]) == []


@pytest.mark.parametrize(
    ("kind", "mean", "low", "high", "mean_is", "interval_is"),
    [
        ("A", 0.32, 0.32, 0.57, "inside", "inside"),
        ("B", 0.31, 0.30, 0.33, "below", "across"),
        ("C", 0.60, 0.58, 0.62, "above", "outside"),
        ("C", 0.50, np.nan, np.nan, "inside", "unknown"),
        ("D", 0.13, 0.12, 0.14, "inside", "across"),
        ("identity", 0.03, 0.01, 0.035, "below", "outside"),
        ("D", 0.5, 0.4, 0.6, "above", "outside"),
    ],
)
def test_ranges_of_the_paper(kind, mean, low, high, mean_is, interval_is):
    (got,) = paper_rows([row(kind, mean, low, high)])
    assert (got.mean_is, got.interval_is) == (mean_is, interval_is)
    same = kind in "ABC"
    assert got.paper == ("same" if same else "different")
    assert (got.paper_low, got.paper_high) == ((0.32, 0.57) if same else (0.04, 0.13))


def test_only_bc_of_one_model_is_held_against_the_paper():
    rows = [row("C", 0.4, measure="emd"), row("cross", 0.4, other_model="n"), row("C", np.nan, n=0)]
    assert list(paper_rows(rows)) == []


def test_definitions_that_reach_the_paper():
    rows = [
        row("A", 0.4), row("A", 0.4, threshold=20), row("C", 0.4, threshold=5), row("B", 0.1),
        row("D", 0.1), row("D", 0.3, threshold=20),
    ]  # fmt: skip
    found = reached(paper_rows(rows))
    assert [(r.kind, r.threshold, r.prior, r.different) for r in found] == [
        ("A", 100, "kept", True), ("A", 20, "kept", False), ("C", 5, "kept", None)
    ]  # fmt: skip
    _, sentence = said(*rows, row("B", 0.4, threshold=2))
    assert "A at 100% with the prior kept (0.40, D is in 0.04-0.13)" in sentence
    assert "A at 20% with the prior kept (0.40, D is not in 0.04-0.13)" in sentence
    assert "and 1 more" in sentence
    assert "of A, C none reaches the paper's 0.32-0.57" in said(row("A", 0.9), row("C", 0.1))[1]
    assert "paper" not in said(D)[1]

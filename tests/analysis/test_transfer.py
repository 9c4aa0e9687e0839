"""The matrix of source and evaluated models."""

import numpy as np
import pytest

from leamfast.analysis.occlusion_tables import occlusion_of
from tests.analysis.occluded import Occluded, arrays_of, axes_of

CONTROLS = ("own", "random", "shifted", "other-identity")
IDENTITIES = [0, 0, 1, 2]


def matrix(drops, controls=CONTROLS):
    """(evaluated, source) -> drops of the controls, the same in all images."""
    axes = axes_of(controls=controls)
    pairs = {
        names: (axes, arrays_of(axes, np.broadcast_to(drop, (4, 1, 1, len(controls)))))
        for names, drop in drops.items()
    }
    return {
        (row.source_model, row.evaluated_model): row
        for row in occlusion_of(Occluded(IDENTITIES, pairs)).transfer
    }


def test_the_diagonal_is_the_whole_and_the_others_parts_of_it():
    found = matrix({
        ("m", "m"): (0.2, 0.03, 0.05, 0.15), ("o", "m"): (0.1, 0.02, 0.03, 0.06),
        ("m", "o"): (0.3, 0.01, 0.02, 0.1), ("o", "o"): (0.4, 0.01, 0.02, 0.3),
    })  # fmt: skip
    assert len(found) == 4
    assert {names: row.of_source for names, row in found.items()} == pytest.approx(
        {("m", "m"): 1, ("o", "o"): 1, ("m", "o"): 0.5, ("o", "m"): 0.75}
    )
    row = found["m", "o"]  # maps of m, embeddings of o
    assert (row.drop, row.random, row.shifted, row.other_identity) == pytest.approx((0.1, 0.02, 0.03, 0.06))
    assert (row.specificity, row.specificity_low, row.specificity_high) == pytest.approx((0.04, 0.04, 0.04))
    assert (row.n, row.people) == (4, 3)


def test_without_the_model_itself_or_the_controls_there_is_no_part_of_it():
    row = matrix({("o", "m"): (0.1, 0.02)}, ("own", "random"))["m", "o"]
    assert (row.drop, row.random) == pytest.approx((0.1, 0.02))
    assert np.isnan([row.of_source, row.shifted, row.other_identity, row.specificity]).all()


def test_means_over_different_pairs_make_no_part():
    """The other model has left out one image of a person who has two: as many people, fewer pairs."""
    axes, drop = axes_of(controls=("own",)), np.full((4, 1, 1, 1), 0.2)
    away = drop.copy()
    away[0] = np.nan
    pairs = {("m", "m"): (axes, arrays_of(axes, drop)), ("o", "m"): (axes, arrays_of(axes, away))}
    home, other = occlusion_of(Occluded(IDENTITIES, pairs)).transfer
    assert (home.n, other.n, home.people, other.people) == (4, 3, 3, 3)
    assert home.of_source == 1
    assert np.isnan(other.of_source)


def test_of_a_map_that_costs_nothing_there_are_no_parts():
    row = matrix({("m", "m"): (0.0, 0, 0, 0), ("o", "m"): (0.1, 0, 0, 0)})["m", "o"]
    assert np.isnan(row.of_source)

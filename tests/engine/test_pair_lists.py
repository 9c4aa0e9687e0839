"""Which maps are compared: all that should be, none twice, and drawn ones spread over the identities."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leamfast.engine.pair_lists import (
    Maps,
    blocks,
    different_identities,
    same_identity,
    same_image,
    same_places,
    shared_maps,
    swapped,
)


def row_maps(sizes):
    """One map an image; sizes of the identities."""
    identity = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.arange(len(identity))
    return Maps(rows, np.full(len(rows), -1), identity)


def each_maps(sizes):
    """A map of every image against every other one of its identity."""
    rows = row_maps(sizes)
    pairs = [
        (a, b) for a in rows.image for b in rows.image if a != b and rows.identity[a] == rows.identity[b]
    ]
    image, reference = np.array(pairs, np.int64).reshape(-1, 2).T
    return Maps(image, reference, rows.identity[image])


def named(maps, pairs):
    """Pairs as sets of (image, reference), so that their order does not count."""
    names = list(zip(maps.image.tolist(), maps.reference.tolist(), strict=True))
    return [frozenset({names[a], names[b]}) for a, b in zip(pairs.first, pairs.second, strict=True)]


def test_kinds_of_two_people_with_three_and_two_images():
    maps = each_maps([3, 2])
    assert len(maps) == 8
    assert sorted(map(sorted, named(maps, same_image(maps, None, 0)))) == [
        [(0, 1), (0, 2)], [(1, 0), (1, 2)], [(2, 0), (2, 1)]
    ]  # fmt: skip
    assert sorted(map(sorted, named(maps, swapped(maps, 0)))) == [
        [(0, 1), (1, 0)], [(0, 2), (2, 0)], [(1, 2), (2, 1)], [(3, 4), (4, 3)]
    ]  # fmt: skip
    same, different = same_identity(maps, None, 0), different_identities(maps, None, 0)
    assert (same.kind, len(same)) == ("C", 9)  # of 15 pairs 3 are of one image and 3 swapped
    assert (different.kind, len(different)) == ("D", 12)


@given(sizes=st.lists(st.integers(1, 4), max_size=5), seed=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_pair_of_maps_is_of_one_kind(sizes, seed):
    maps = each_maps(sizes)
    lists = [same_image(maps, None, seed), swapped(maps, seed), same_identity(maps, None, seed),
             different_identities(maps, None, seed)]  # fmt: skip
    found = [pair for pairs in lists for pair in named(maps, pairs)]
    names = zip(maps.image.tolist(), maps.reference.tolist(), strict=True)
    assert Counter(found) == Counter(frozenset(pair) for pair in combinations(names, 2))
    for pairs in lists:
        assert sorted(pairs.turn) == list(range(len(pairs)))


def test_rows_have_their_pairs_of_one_and_of_two_people():
    maps = row_maps([3, 1, 2])
    assert named(maps, same_identity(maps, None, 0)) == [
        {(0, -1), (1, -1)}, {(0, -1), (2, -1)}, {(1, -1), (2, -1)}, {(4, -1), (5, -1)}
    ]  # fmt: skip
    assert len(different_identities(maps, None, 0)) == 3 + 6 + 2
    assert len(same_image(maps, None, 0)) == len(swapped(maps, 0)) == 0


def test_all_pairs_of_images_stay_where_references_are_drawn():
    maps = each_maps([4, 4])
    every = same_identity(maps, None, 0)
    drawn = same_identity(maps, 24, 0)
    images = {(maps.image[a], maps.image[b]) for a, b in zip(drawn.first, drawn.second, strict=True)}
    assert len(every) == 96
    assert len(drawn) == 24
    assert len({tuple(sorted(pair)) for pair in images}) == 12
    assert set(named(maps, drawn)) < set(named(maps, every))
    assert named(maps, same_identity(maps, 24, 0)) == named(maps, drawn)
    assert named(maps, same_identity(maps, 24, 1)) != named(maps, drawn)


def test_one_map_an_image_is_never_thinned_within_an_identity():
    maps = row_maps([30])
    assert len(same_identity(maps, 5, 0)) == 30 * 29 // 2


def test_every_image_keeps_pairs_of_references_where_they_are_drawn():
    maps = each_maps([5, 2])
    assert len(same_image(maps, None, 0)) == 5 * 6
    drawn = same_image(maps, 12, 0)
    assert np.bincount(maps.image[drawn.first]).tolist() == [2] * 5
    assert set(named(maps, drawn)) < set(named(maps, same_image(maps, None, 0)))


def test_all_pairs_of_images_of_two_people_stay_where_they_are_few():
    maps = each_maps([3, 2, 2])
    every = different_identities(maps, None, 0)
    assert len(every) == 6 * 2 + 6 * 2 + 2 * 2
    drawn = different_identities(maps, 27, 0)
    images = {(maps.image[a], maps.image[b]) for a, b in zip(drawn.first, drawn.second, strict=True)}
    assert len(images) == len(drawn) == 6 + 6 + 4
    assert set(named(maps, drawn)) < set(named(maps, every))


@pytest.mark.parametrize("make", [row_maps, each_maps])
def test_no_identity_dominates_the_draw(make):
    maps = make([40, *[2] * 19])
    drawn = different_identities(maps, 200, 0)
    assert len(drawn) == 200
    assert len(set(named(maps, drawn))) == 200
    assert (maps.identity[drawn.first] != maps.identity[drawn.second]).all()
    shares = np.bincount(np.concatenate([maps.identity[drawn.first], maps.identity[drawn.second]]))
    assert shares.max() <= 25  # 400 sides over 20 identities are 20 each; drawn from all, the first had 150
    assert shares.min() >= 15


def test_a_draw_ends_where_few_pairs_are_left():
    maps = row_maps([1, 1, 40])
    assert 75 <= len(different_identities(maps, 80, 0)) <= 80


def test_a_draw_does_not_depend_on_the_order_of_maps_of_other_images():
    maps = row_maps([3] * 50)
    one, two = (different_identities(maps, 300, 7) for _ in range(2))
    assert np.array_equal(one.first, two.first)
    assert np.array_equal(one.turn, two.turn)
    assert not np.array_equal(one.first, different_identities(maps, 300, 8).first)


def test_the_first_turns_go_round_the_identities():
    maps = row_maps([20, 2, 2, 2])
    pairs = same_identity(maps, None, 0)
    first = maps.identity[pairs.first[np.argsort(pairs.turn)[:4]]]
    assert sorted(first) == [0, 1, 2, 3]
    pairs = different_identities(maps, None, 0)
    order = np.argsort(pairs.turn)[:6]
    of = [tuple(sorted((maps.identity[pairs.first[n]], maps.identity[pairs.second[n]]))) for n in order]
    assert sorted(of) == list(combinations(range(4), 2))


@pytest.mark.parametrize("sizes", [[], [1], [5]])
def test_too_few_people_make_no_pairs_of_two(sizes):
    maps = row_maps(sizes)
    for most in (None, 3):
        assert len(different_identities(maps, most, 0)) == 0


def test_each_map_with_that_of_the_same_place():
    pairs = same_places("cross", row_maps([2, 1]), 0)
    assert pairs.first.tolist() == pairs.second.tolist() == [0, 1, 2]


def test_maps_that_every_tap_has():
    each = {
        "a": (np.array([0, 0, 1, 2]), np.array([1, 2, 0, 0])),
        "b": (np.array([2, 1, 0]), np.array([0, 0, 2])),
    }
    image, reference, numbers = shared_maps(each, 3)
    assert list(zip(image, reference, strict=True)) == [(0, 2), (1, 0), (2, 0)]
    assert numbers["a"].tolist() == [1, 2, 3]
    assert numbers["b"].tolist() == [2, 1, 0]


@pytest.mark.parametrize("most", [1, 2, 5, 100])
def test_blocks_cover_all_pairs_in_order_and_hold_few_maps(most):
    first, second = np.random.default_rng(0).integers(30, size=(2, 70))
    found = list(blocks(first, second, most))
    assert [n for block in found for n in range(block.start, block.stop)] == list(range(70))
    for block in found:
        maps = len(np.union1d(first[block], second[block]))
        assert maps <= most or block.stop - block.start == 1
    assert list(blocks(first[:0], second[:0], most)) == []

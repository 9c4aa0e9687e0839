"""What stands in for a support: draws that depend on seed and row alone, and supports that are moved."""

import numpy as np
import pytest
import torch

from leamfast.leam.controls import (
    centre_ranks,
    draw,
    full_ranks,
    moved,
    moved_onto,
    random_moves,
    random_pixels,
    random_ranks,
)
from leamfast_kernels import support

ROWS, SEEDS = [7, 0, 10**12], [0, 3]


# -- draws


@pytest.mark.parametrize("block", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [16, 13])
def test_random_ranks_are_permutations(size, block):
    ranks = random_ranks(ROWS, SEEDS, size, block)
    assert ranks.shape == (3, 2, size, size)
    assert ranks.dtype == torch.int32
    everything = torch.arange(size * size, dtype=torch.int32)
    assert (ranks.flatten(2).sort(dim=2).values == everything).all()


@pytest.mark.parametrize("block", [2, 4, 8])
@pytest.mark.parametrize("size", [16, 13])
def test_all_blocks_but_one_are_whole_or_untouched(size, block):
    ranks = random_ranks([5], [1], size, block)[0, 0]
    for count in (1, 3, block * block, 37, size * size - 1):
        taken = ranks < count
        assert taken.sum() == count
        broken = 0
        for y in range(0, size, block):
            for x in range(0, size, block):
                inside = taken[y : y + block, x : x + block]
                broken += int(0 < inside.sum() < inside.numel())
        assert broken <= 1


def test_random_pixels_lie_everywhere():
    """The first percent of many draws: each pixel is about as often among them as any other."""
    ranks = random_ranks(range(4000), [0], 10)[:, 0]
    hits = (ranks < 10).sum(dim=0).float()
    assert (hits - 400).abs().max() < 5 * 400**0.5


def test_a_draw_depends_on_what_it_is_for_the_seed_and_the_row_alone():
    whole = random_ranks(ROWS, SEEDS, 8, 2)
    torch.testing.assert_close(random_ranks(ROWS[::-1], SEEDS, 8, 2), whole.flip(0))
    torch.testing.assert_close(random_ranks(ROWS[1:2], SEEDS[1:], 8, 2), whole[1:2, 1:])
    different = [whole[i, j].flatten().tolist() for i in range(3) for j in range(2)]
    assert len(set(map(tuple, different))) == 6
    assert not torch.equal(random_ranks([0], [0], 8, 1), random_ranks([0], [0], 8, 2))
    assert draw(1, 2, 3).integers(2**40) == draw(1, 2, 3).integers(2**40)
    assert len({draw(*key).integers(2**40) for key in ((1, 2, 3), (2, 1, 3), (1, 3, 2), (3, 2, 1))}) == 4


def test_moves_are_never_none_and_depend_on_the_row():
    moves = random_moves(range(3000), 0, 6)
    assert moves.shape == (3000, 2)
    assert set(moves.ravel().tolist()) == {1, 2, 3, 4, 5}
    np.testing.assert_array_equal(random_moves([17, 4], 0, 6), moves[[17, 4]])
    assert (random_moves(range(100), 1, 112) != random_moves(range(100), 0, 112)).mean() > 0.9


def test_random_pixels_lie_in_the_region():
    inside = np.zeros((500, 6, 7), bool)
    inside[:, 2, 5] = inside[:, 4, 1] = True
    inside[3] = False
    found = random_pixels(range(500), 0, inside)
    assert found[3].tolist() == [-1, -1]
    others = np.delete(found, 3, axis=0)
    assert {tuple(place) for place in others.tolist()} == {(2, 5), (4, 1)}
    assert 180 < (others[:, 0] == 2).sum() < 320
    np.testing.assert_array_equal(random_pixels([9, 8], 0, inside[[9, 8]]), found[[9, 8]])


# -- fixed orders


def test_centre_ranks_on_a_tiny_crop():
    # Squared distances of 3 x 3 pixels from the middle: 2 1 2 / 1 0 1 / 2 1 2.
    assert centre_ranks(3).tolist() == [[5, 1, 6], [2, 0, 3], [7, 4, 8]]
    # An even side has four pixels in the middle, the lower index first.
    assert centre_ranks(4)[1:3, 1:3].tolist() == [[0, 1], [2, 3]]


def test_the_nearest_pixels_are_a_disc():
    ranks = centre_ranks(112)
    offsets = torch.arange(112) - 55.5
    distance = offsets[:, None] ** 2 + offsets**2
    for count in (125, 627, 2509):
        taken = ranks < count
        assert taken.sum() == count
        assert distance[taken].max() <= distance[~taken].min()


# -- moved supports


def moved_one_by_one(masks: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    made = torch.empty_like(masks)
    for i in range(masks.shape[0]):
        for j in range(masks.shape[1]):
            made[i, j] = torch.roll(masks[i, j], tuple(moves[i, j].tolist()), (0, 1))
    return made


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32])
def test_moved_is_a_roll_on_both_paths(dtype):
    masks = torch.randint(0, 2 if dtype == torch.bool else 99, (4, 3, 9, 9)).to(dtype)
    moves = torch.tensor([[1, 8], [0, 3], [5, 0], [-2, 12]])
    each = moves[:, None].expand(-1, 3, -1)
    wanted = moved_one_by_one(masks, each)
    assert torch.equal(moved(masks, moves), wanted)  # rolled
    assert torch.equal(moved(masks, each), wanted)  # gathered, as on a GPU
    different = torch.randint(-9, 9, (4, 3, 2))
    assert torch.equal(moved(masks, different), moved_one_by_one(masks, different))


def test_moved_of_nothing_is_nothing():
    nothing = torch.zeros((0, 2, 5, 5), dtype=torch.bool)
    assert moved(nothing, torch.zeros((0, 2), dtype=torch.int64)).shape == (0, 2, 5, 5)
    assert moved_onto(nothing, torch.zeros((0, 2), dtype=torch.int64)).shape == (0, 2, 5, 5)


def test_moved_onto_puts_the_centroid_on_the_goal():
    masks = torch.zeros((2, 3, 21, 21), dtype=torch.bool)
    masks[:, 0, 3:6, 10:15] = True  # centroid (4, 12)
    masks[:, 1, 8, 8] = True
    goals = torch.tensor([[10, 9], [6, 13]])
    made = moved_onto(masks, goals)
    for row, (y, x) in enumerate(goals.tolist()):
        for number, area in ((0, 15), (1, 1)):
            pixels = made[row, number].nonzero().double()
            assert len(pixels) == area
            assert pixels.mean(dim=0).tolist() == [y, x]
        assert not made[row, 2].any()  # an empty one stays empty
    assert torch.equal(made[0, 0, 9:12, 7:12], torch.ones((3, 5), dtype=torch.bool))


def test_what_is_moved_onto_an_edge_comes_in_at_the_other_side():
    masks = torch.zeros((1, 1, 7, 7), dtype=torch.bool)
    masks[0, 0, 2:5, 2:5] = True
    made = moved_onto(masks, torch.tensor([[0, 6]]))
    assert made.sum() == 9
    assert made[0, 0, [6, 0, 1]][:, [5, 6, 0]].all()


# -- the order of all pixels


@pytest.mark.parametrize("centres", [None, ((1.0, 4.0), (2.0, 4.5))])
def test_full_ranks_take_positive_pixels_in_the_order_of_supports(centres):
    size, percents = 24, [1, 5, 20, 60, 100]
    maps = torch.rand(5, 6, 6)
    maps[1, 2:] = 0  # about two thirds of the pixels are zero
    maps[2] = maps[2].round(decimals=1)  # ties
    maps[3] = 0
    random = random_ranks(range(5), [0], size)[:, 0]
    ranks = full_ranks(maps, random, size, centres)
    assert ranks.dtype == torch.int32
    assert (ranks.flatten(1).sort(dim=1).values == torch.arange(size * size)).all()
    masks = support(maps, percents, size, centres)
    positive = masks[:, -1].flatten(1).sum(dim=1)
    for p, percent in enumerate(percents):
        count = torch.minimum(positive, torch.tensor(round(percent / 100 * size * size)))
        assert torch.equal(ranks < count[:, None, None], masks[:, p])


def test_where_a_map_is_zero_the_random_order_decides():
    maps = torch.zeros(2, 4, 4)
    maps[0, 1, 2] = 1
    random = random_ranks([4, 4], [2], 4)[:, 0]
    ranks = full_ranks(maps, random, 4, None)
    assert ranks[0, 1, 2] == 0
    assert torch.equal(ranks[1], random[1])
    others = ranks[0].flatten() != 0
    assert torch.equal(ranks[0].flatten()[others].argsort(), random[0].flatten()[others].argsort())

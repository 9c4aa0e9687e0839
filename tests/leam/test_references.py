import numpy as np
import pytest
import torch

from leamfast.leam.references import draw_references, leave_one_out


def test_leave_one_out_by_hand():
    weights = leave_one_out(torch.tensor([4, 7, 4, 4]))
    half = 0.5
    wanted = [[0, 0, half, half], [0, 0, 0, 0], [half, 0, 0, half], [half, 0, half, 0]]
    assert torch.equal(weights, torch.tensor(wanted))


def test_draws_follow_from_seed_and_image_alone():
    positions = list(range(100, 140))
    draw = draw_references(positions, 117, 8, seed=1)
    assert len(set(draw)) == 8
    assert draw == sorted(draw)
    assert 117 not in draw
    assert draw == draw_references(positions, 117, 8, seed=1)
    assert draw != draw_references(positions, 117, 8, seed=2)
    assert draw != [p for p in draw_references(positions, 118, 8, seed=1)]


@pytest.mark.parametrize("image", [0, 3 * 77, 3 * 20_999])
def test_draws_are_those_of_a_list_of_the_others(image):
    for positions in (list(range(0, 3 * 21_000, 3)), [0, 3 * 77, 3 * 20_999, 90_000]):
        others = [position for position in positions if position != image]
        numbers = np.random.default_rng([4, image]).choice(len(others), size=2, replace=False)
        assert draw_references(positions, image, 2, seed=4) == [others[n] for n in sorted(numbers)]


def test_an_image_draws_among_its_own():
    with pytest.raises(ValueError, match="image must be one of positions, got 5"):
        draw_references([3, 4], 5, 8, seed=0)
    with pytest.raises(ValueError, match="got 1"):
        draw_references([], 1, 8, seed=0)


def test_few_images_are_all_taken():
    assert draw_references([3, 4, 9], 4, 8, seed=0) == [3, 9]
    assert draw_references([3], 3, 8, seed=0) == []

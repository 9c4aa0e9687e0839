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


def test_few_images_are_all_taken():
    assert draw_references([3, 4, 9], 4, 8, seed=0) == [3, 9]
    assert draw_references([3], 3, 8, seed=0) == []

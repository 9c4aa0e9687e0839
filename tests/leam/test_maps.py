"""The fused map, and maps as they are stored."""

import pytest
import torch

from leamfast.leam.fused import fuse, normalise
from leamfast.leam.stored import to_stored


def test_fused_is_the_mean_of_normalised_maps():
    first, second = torch.rand(2, 4, 4), torch.rand(2, 4, 4)
    wanted = (first / first.sum((1, 2), keepdim=True) + second / second.sum((1, 2), keepdim=True)) / 2
    torch.testing.assert_close(fuse([first, 100 * second], 4), wanted)


def test_fused_maps_sum_to_one_whatever_the_resolutions():
    fused = fuse([torch.rand(3, 7, 7), torch.rand(3, 14, 14), torch.rand(3, 56, 56)], 112)
    torch.testing.assert_close(fused.sum((1, 2)), torch.ones(3))


def test_fused_maps_follow_the_centres_of_their_cells():
    maps = torch.zeros(1, 7, 7)
    maps[0, 3, 3] = 1
    plain, placed = fuse([maps], 112), fuse([maps], 112, [((0.0, 16.0), (0.0, 16.0))])
    assert divmod(int(placed.flatten().argmax()), 112) == (48, 48)
    rows = torch.arange(112.0)
    torch.testing.assert_close((plain[0].sum(1) * rows).sum(), torch.tensor(55.5))
    torch.testing.assert_close((placed[0].sum(1) * rows).sum(), torch.tensor(48.0))


def test_a_map_of_zeros_adds_nothing_and_a_missing_one_is_missing():
    maps = torch.ones(2, 4, 4)
    zero, missing = torch.zeros(2, 4, 4), torch.full((2, 4, 4), torch.nan)
    torch.testing.assert_close(fuse([maps, zero], 4), normalise(maps) / 2)
    assert fuse([maps, missing], 4).isnan().all()
    with pytest.raises(ValueError, match="at least one tap"):
        fuse([], 4)


def test_stored_maps_have_maximum_one_and_give_the_map_back():
    maps = torch.rand(5, 9, 9) * torch.tensor([1e-6, 1.0, 7.0, 1e5, 3e7]).view(5, 1, 1)
    stored, scale = to_stored(maps)
    assert stored.dtype == torch.float16
    assert torch.equal(stored.amax((1, 2)), torch.ones(5, dtype=torch.float16))
    torch.testing.assert_close(stored.float() * scale.view(5, 1, 1), maps, rtol=1e-3, atol=1e-6 * 3e7)


def test_stored_zero_and_missing_maps():
    maps = torch.stack([torch.zeros(3, 3), torch.full((3, 3), torch.nan)])
    stored, scale = to_stored(maps)
    assert torch.equal(stored[0], torch.zeros(3, 3, dtype=torch.float16))
    assert scale[0] == 0
    assert stored[1].isnan().all()
    assert scale[1].isnan()

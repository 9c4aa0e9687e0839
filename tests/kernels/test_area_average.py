"""Area averages: exact numbers, mass kept, bounds of the size."""

import pytest
import torch

from leamfast_kernels import area_average


def test_cells_across_a_border_are_shared_out_by_area():
    maps = torch.tensor([[[3.0, 0.0, 0.0], [0.0, 6.0, 0.0], [0.0, 0.0, 9.0]]])
    found = area_average(maps, 2)
    assert torch.allclose(found, torch.tensor([[[4.5, 1.5], [1.5, 10.5]]]))


@pytest.mark.parametrize(
    ("fine", "coarse"), [((56, 56), 28), ((37, 41), 28), ((28, 7), (28, 7)), ((5, 9), 1)]
)
def test_mass_is_kept(fine, coarse):
    maps = torch.rand(3, *fine, dtype=torch.float64)
    found = area_average(maps, coarse)
    assert torch.allclose(found.sum(dim=(1, 2)), maps.sum(dim=(1, 2)), rtol=1e-13)
    assert found.min() >= 0


def test_whole_ratios_are_sums_of_blocks():
    maps = torch.rand(2, 6, 8)
    blocks = maps.reshape(2, 3, 2, 4, 2).sum(dim=(2, 4))
    assert torch.allclose(area_average(maps, (3, 4)), blocks, rtol=1e-6)


def test_maps_of_the_size_stay_as_they_are():
    maps = torch.rand(2, 7, 7)
    assert torch.equal(area_average(maps, 7), maps)


def test_a_nan_stays_in_its_own_map():
    maps = torch.rand(2, 4, 4)
    maps[0] = torch.nan
    found = area_average(maps, 2)
    assert found[0].isnan().all()
    assert torch.isfinite(found[1]).all()


def test_a_finer_grid_is_refused():
    with pytest.raises(ValueError, match="at most"):
        area_average(torch.rand(1, 7, 7), 8)

"""The kernels of `bhattacharyya` and `bhattacharyya_matrix`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from leamfast_kernels import selection
from leamfast_kernels.bhattacharyya import bhattacharyya_reference
from leamfast_kernels.unit_roots import support_keys_sorted
from tests.kernels.conftest import TOLERANCES
from tests.kernels.test_bhattacharyya import LAYOUTS, in_layout, some_maps, some_pairs

pytestmark = pytest.mark.gpu

DTYPES = list(TOLERANCES)
SHAPES = [(1, 1), (3, 5), (37, 40)]


def close(found, wanted, dtype=torch.float32):
    torch.testing.assert_close(found, wanted.to(found.dtype), equal_nan=True, **TOLERANCES[dtype])


def unit_roots_reference(maps, count=None):
    """sqrt(p / sum p) in float64; of the `count` largest positive pixels, by a stable sort."""
    values = maps.double().flatten(1)
    if count is not None:
        order = maps.float().flatten(1).sort(dim=1, descending=True, stable=True).indices
        values = torch.zeros_like(values).scatter_(1, order[:, :count], values.gather(1, order[:, :count]))
    return (values / values.sum(dim=1, keepdim=True)).sqrt()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cells", SHAPES, ids=str)
def test_pairs(cells, layout, dtype, device):
    from leamfast_kernels.gpu.bhattacharyya import launch_pairs

    p, q = in_layout(layout, 5, cells, dtype).to(device), in_layout("contiguous", 5, cells, dtype).to(device)
    found = launch_pairs(p, q, None, None, None)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    close(found, bhattacharyya_reference(p, q), dtype)
    pairs = some_pairs(9, 5, 4).to(device)
    close(launch_pairs(p, q[:4], pairs, None, None), bhattacharyya_reference(p, q, pairs), dtype)
    percent = 30
    count = selection.pixel_count(percent, *cells)
    keys = support_keys_sorted(p, count), support_keys_sorted(q, count)
    for listed in (None, pairs.T.contiguous().T):
        close(launch_pairs(p, q, listed, *keys), bhattacharyya_reference(p, q, listed, percent), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cells", SHAPES, ids=str)
def test_roots(cells, layout, dtype, device):
    from leamfast_kernels.gpu.bhattacharyya import launch_unit_roots

    maps = in_layout(layout, 5, cells, dtype).to(device)
    close(launch_unit_roots(maps, None), unit_roots_reference(maps), dtype)
    count = max(1, cells[0] * cells[1] // 3)
    close(launch_unit_roots(maps, support_keys_sorted(maps, count)), unit_roots_reference(maps, count), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cells", SHAPES, ids=str)
def test_support_keys(cells, dtype, device):
    from leamfast_kernels.gpu.bhattacharyya import launch_support_keys

    pixels = cells[0] * cells[1]
    maps = torch.cat([some_maps(1, *cells), some_maps(1, *cells, levels=2), torch.zeros(1, *cells)]).to(dtype)
    for layout, counts in ((maps, {1, max(1, pixels // 10), pixels}), (maps.mT.contiguous().mT, {0, 1})):
        for count in counts:
            found = launch_support_keys(layout.to(device), count)
            assert torch.equal(found, support_keys_sorted(layout.to(device), count))


def test_support_keys_of_the_largest_maps(device):
    from leamfast_kernels.gpu.bhattacharyya import LARGEST, launch_support_keys

    assert LARGEST == 128 * 128
    maps = some_maps(2, 128, 128).to(device)
    assert torch.equal(launch_support_keys(maps, 1638), support_keys_sorted(maps, 1638))


@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf, -torch.inf, -1.0, 0.0])
def test_a_map_that_is_no_distribution(bad, device):
    from leamfast_kernels.gpu.bhattacharyya import launch_pairs, launch_support_keys, launch_unit_roots

    maps = torch.rand(4, 6, 7) + 0.1
    if bad == 0:
        maps[2] = 0
    else:
        maps[2, 5, 5] = bad
    maps = maps.to(device)
    wanted = torch.tensor([False, False, True, False], device=device)
    keys = launch_support_keys(maps, 20)
    assert torch.equal(keys, support_keys_sorted(maps, 20))
    pairs = torch.tensor([[0, 1], [2, 0], [1, 2], [3, 3]], device=device)
    for lowest in (None, keys):
        assert torch.equal(launch_pairs(maps, torch.ones_like(maps), None, lowest, lowest).isnan(), wanted)
        of_pairs = launch_pairs(maps, maps, pairs, lowest, lowest).isnan()
        assert of_pairs.tolist() == [False, True, True, False]
        roots = launch_unit_roots(maps, lowest)
        assert torch.equal((roots @ roots.T).isnan(), wanted[:, None] | wanted)


def test_sums_and_products_neither_overflow_nor_underflow(device):
    from leamfast_kernels.gpu.bhattacharyya import launch_pairs, launch_unit_roots

    for scale in (1e38, 1e-42):
        p, q = (torch.rand(3, 20, 20) * scale).to(device), (torch.rand(3, 20, 20) * scale).to(device)
        close(launch_pairs(p, q, None, None, None), bhattacharyya_reference(p, q))
        close(launch_unit_roots(p, None), unit_roots_reference(p))


def test_rows_that_there_are_not(device):
    from leamfast_kernels.gpu.bhattacharyya import launch_pairs

    p, q = torch.rand(3, 4, 5, device=device), torch.rand(2, 4, 5, device=device)
    pairs = torch.tensor([[2, 1], [3, 0], [0, 2], [-1, 0], [0, -1], [2**40, 0], [0, 0]], device=device)
    keys = support_keys_sorted(p, 5), support_keys_sorted(q, 5)
    for lowest in ((None, None), keys):
        found = launch_pairs(p, q, pairs, *lowest)
        assert found.isnan().tolist() == [False, True, True, True, True, True, False]
        assert torch.equal(found[[0, 6]], launch_pairs(p, q, pairs[[0, 6]], *lowest))


def test_no_maps(device):
    from leamfast_kernels.gpu.bhattacharyya import launch_pairs, launch_support_keys, launch_unit_roots

    none = torch.ones(0, 3, 4, device=device)
    pairs = torch.empty(0, 2, dtype=torch.int64, device=device)
    assert launch_pairs(none, none, None, None, None).shape == (0,)
    assert launch_pairs(none, none, pairs, None, None).shape == (0,)
    assert launch_unit_roots(none, None).shape == (0, 12)
    assert launch_support_keys(none, 3).shape == (0,)


def test_offsets_beyond_32_bits(device):
    """Maps whose second row lies 2^31 elements behind the first."""
    from leamfast_kernels.gpu.bhattacharyya import launch_pairs, launch_support_keys, launch_unit_roots
    from leamfast_kernels.gpu.strides import is_wide

    pages = np.zeros(2**31 + 16, dtype=np.float16)  # of which only those are ever held that are written to
    memory = (
        torch.from_numpy(pages)
        if device == "cpu"
        else torch.empty(len(pages), dtype=torch.float16, device=device)
    )
    small = torch.rand(2, 2, 8, dtype=torch.float16, device=device)
    maps = memory.as_strided((2, 2, 8), (8, 2**31, 1)).copy_(small)
    assert is_wide(maps[:, None])
    close(launch_unit_roots(maps, None), unit_roots_reference(small))
    assert torch.equal(launch_support_keys(maps, 5), support_keys_sorted(small, 5))
    pairs = torch.tensor([[0, 1], [1, 1]], device=device)
    close(launch_pairs(maps, maps, pairs, None, None), bhattacharyya_reference(small, small, pairs))

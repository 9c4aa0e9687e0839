"""The kernels of `aggregate`, `aggregate_statistics` and `aggregate_backward`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from leamfast_kernels.aggregate import aggregate_reference
from leamfast_kernels.aggregate_backward import aggregate_backward_reference
from tests.kernels.conftest import TOLERANCES
from tests.kernels.test_aggregate import LAYOUTS, SHAPES, in_layout

pytestmark = pytest.mark.gpu

DTYPES = list(TOLERANCES)


def close(found, wanted, dtype=torch.float32):
    torch.testing.assert_close(found, wanted.to(found.dtype), equal_nan=True, **TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_maps_and_statistics(shape, layout, dtype, device):
    from leamfast_kernels.gpu.aggregate import launch_aggregate, launch_statistics

    acts, grads = (x.to(device) for x in in_layout(layout, shape, dtype))
    wanted = aggregate_reference(acts, grads)
    maps, maxima, sums = launch_statistics(acts, grads)
    assert maps.dtype == wanted.dtype
    close(maps, wanted, dtype)
    close(maxima, wanted.amax(dim=(1, 2)), dtype)
    close(sums, wanted.sum(dim=(1, 2)), dtype)
    assert torch.equal(launch_aggregate(acts, grads), maps)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_step_of_a_backward_pass(shape, layout, dtype, device):
    from leamfast_kernels.gpu.aggregate_backward import launch_aggregate_backward

    acts, grads = (x.to(device) for x in in_layout(layout, shape, dtype))
    scale, shift, slope = (torch.randn(3, shape[1]).to(dtype)).to(device)
    maps, out = launch_aggregate_backward(acts, grads, scale, shift, slope)
    wanted_maps, wanted_out = aggregate_backward_reference(acts, grads, scale, shift, slope)
    assert out.dtype == dtype
    # Where the argument of the PReLU is zero up to rounding, either of its slopes is right.
    kink = (acts.double() * scale.double()[:, None, None] + shift.double()[:, None, None]).abs() < 1e-5
    wanted_out = torch.where(kink, out, wanted_out)
    if dtype in (torch.float16, torch.bfloat16):
        torch.testing.assert_close(out, wanted_out, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
    else:
        close(out, wanted_out, dtype)
    still = ~kink.any(dim=1)
    close(maps[still], wanted_maps[still], dtype)


def test_what_is_not_finite_stays_so(device):
    from leamfast_kernels.gpu.aggregate import launch_statistics

    acts = torch.randn(4, 3, 5, 5)
    grads = torch.ones(4, 3, 5, 5)
    grads[0, 1, 2, 2] = torch.nan
    acts[1, 0, 0, 0], grads[1, 0, 0, 0] = torch.inf, -1.0  # infinity times the zero of a negative gradient
    acts[2, 2, 4, 4] = torch.inf
    acts, grads = acts.to(device), grads.to(device)
    maps, maxima, sums = launch_statistics(acts, grads)
    wanted = aggregate_reference(acts, grads)
    assert wanted[:2].isnan().sum() == 2
    close(maps, wanted)
    close(maxima, wanted.amax(dim=(1, 2)))
    close(sums, wanted.sum(dim=(1, 2)))


def test_no_images(device):
    from leamfast_kernels.gpu.aggregate import launch_statistics

    empty = torch.ones(0, 3, 4, 5, device=device)
    assert [tuple(x.shape) for x in launch_statistics(empty, empty)] == [(0, 4, 5), (0,), (0,)]


def test_offsets_beyond_32_bits(device):
    """The second channel lies 2^31 elements behind the first; nothing between them is touched."""
    from leamfast_kernels.gpu.aggregate import launch_aggregate

    pages = np.zeros(2**31 + 8, dtype=np.float16)  # of which only those are ever held that are written to
    memory = (
        torch.from_numpy(pages)
        if device == "cpu"
        else torch.empty(len(pages), dtype=torch.float16, device=device)
    )
    memory[:8], memory[-8:] = torch.rand(2, 8, dtype=torch.float16, device=device)
    acts = memory.as_strided((1, 2, 1, 8), (0, 2**31, 8, 1))
    grads = torch.ones(1, 2, 1, 8, dtype=torch.float16, device=device)
    assert (acts > 0).any(dim=(0, 2, 3)).all()
    close(launch_aggregate(acts, grads), aggregate_reference(acts, grads))

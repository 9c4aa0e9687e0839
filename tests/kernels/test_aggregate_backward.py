"""aggregate_backward: the step of a backward pass over BatchNorm and PReLU, and the map, in one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leamfast_kernels import aggregate, aggregate_backward, aggregate_backward_reference
from tests.kernels.test_aggregate import LAYOUTS, in_layout

# Exact numbers


def test_a_case_worked_by_hand() -> None:
    acts = torch.tensor([[[[2.0, -1.0]], [[1.0, 3.0]]]])
    grads = torch.tensor([[[[1.0, 4.0]], [[-2.0, 1.0]]]])
    scale, shift, slope = torch.tensor([3.0, -1.0]), torch.tensor([0.0, 2.0]), torch.tensor([0.5, 0.25])
    maps, out = aggregate_backward(acts, grads, scale, shift, slope)
    # Channel 0: z = 6, -3 -> 1 * 3, 4 * 3 * 0.5.  Channel 1: z = 1, -1 -> -2 * -1, 1 * -1 * 0.25.
    assert out.tolist() == [[[[3.0, 6.0]], [[2.0, -0.25]]]]
    assert maps.tolist() == [[[8.0, 0.0]]]  # 2*3 + 1*2;  -1*6 + 3*0


# Against the reference, and against autograd


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 17, 5, 9), (5, 96, 60, 64)], ids=str)
def test_equals_the_reference(shape, layout, dtype, assert_close, poisoned) -> None:
    acts, grads = in_layout(layout, shape, dtype)
    of_channels = torch.randn(3, shape[1]).to(dtype)
    maps, out = aggregate_backward(acts, grads, *of_channels)
    wanted_maps, wanted_out = aggregate_backward_reference(acts, grads, *of_channels)
    assert out.dtype == dtype
    assert_close(maps, wanted_maps)
    assert_close(out, wanted_out)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_equals_autograd_through_the_modules(layout) -> None:
    torch.manual_seed(0)
    norm, prelu = nn.BatchNorm2d(6).double().eval(), nn.PReLU(6).double()
    for tensor in (norm.running_mean, norm.bias.data, prelu.weight.data):
        tensor.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.normal_()
    acts, behind = in_layout(layout, (3, 6, 7, 5), torch.float64)
    acts.requires_grad_()
    (wanted,) = torch.autograd.grad(prelu(norm(acts)), acts, behind)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    maps, out = aggregate_backward(acts, behind, scale, norm.bias - norm.running_mean * scale, prelu.weight)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(maps, aggregate(acts, wanted))
    assert not maps.requires_grad
    assert not out.requires_grad


# Laws


def test_without_batch_norm_and_prelu_it_is_aggregate(dtype, assert_close) -> None:
    acts, grads = in_layout("contiguous", (4, 9, 6, 5), dtype)
    one, zero = torch.ones(9, dtype=dtype), torch.zeros(9, dtype=dtype)
    maps, out = aggregate_backward(acts, grads, one, zero, one)
    assert torch.equal(out, grads)
    assert_close(maps, aggregate(acts, grads))


# Batch equals loop


@pytest.mark.parametrize("shape", [(5, 3, 5, 7), (4, 64, 112, 112)], ids=str)
def test_batch_equals_loop_to_the_bit(shape, threads) -> None:
    acts, grads = in_layout("contiguous", shape, torch.float32)
    of_channels = torch.randn(3, shape[1])
    batch = aggregate_backward(acts, grads, *of_channels)
    pieces = [
        aggregate_backward(a, g, *of_channels) for a, g in zip(acts.split(1), grads.split(1), strict=True)
    ]
    for whole, parts in zip(batch, zip(*pieces, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))


def test_an_empty_batch() -> None:
    empty, channels = torch.ones(0, 3, 4, 5), torch.ones(3)
    maps, out = aggregate_backward(empty, empty, channels, channels, channels)
    assert maps.shape == (0, 4, 5)
    assert out.shape == (0, 3, 4, 5)


# The operator


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "expanded"])
def test_opcheck(layout, dtype) -> None:
    of_channels = torch.randn(3, 3).to(dtype).unbind()
    arguments = (*in_layout(layout, (2, 3, 5, 7), dtype), *of_channels)
    torch.library.opcheck(torch.ops.leamfast.aggregate_backward.default, arguments)


def test_compiles_into_one_graph() -> None:
    arguments = (*in_layout("contiguous", (2, 3, 5, 7), torch.float32), *torch.randn(3, 3).unbind())
    compiled = torch.compile(aggregate_backward, fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(*arguments), aggregate_backward(*arguments), strict=True):
        assert torch.equal(one, other)


# Bad input

GOOD, CHANNELS = torch.ones(2, 3, 4, 5), torch.ones(3)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((GOOD, GOOD[:1], CHANNELS, CHANNELS, CHANNELS), ValueError, r"^grads must have the shape of acts"),
        ((GOOD, GOOD, None, CHANNELS, CHANNELS), TypeError, r"^scale must be a torch.Tensor, got NoneType$"),
        ((GOOD, GOOD, CHANNELS, CHANNELS[:2], CHANNELS), ValueError, r"^shift must have shape \(3,\) on cpu"),
        ((GOOD, GOOD, CHANNELS, CHANNELS, CHANNELS.to("meta")), ValueError, r"^slope must .* on meta$"),
    ],
)
def test_bad_input(given, error, message) -> None:
    with pytest.raises(error, match=message):
        aggregate_backward(*given)

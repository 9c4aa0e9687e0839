"""aggregate: M = ReLU( sum_k ReLU(G^k) * A^k )."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leamfast_kernels import aggregate, aggregate_reference, aggregate_statistics
from leamfast_kernels.tuning import AGGREGATE_BLOCK

LAYOUTS = ["contiguous", "channels_last", "mixed", "sliced", "transposed", "expanded"]
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 17, 1, 9), (5, 33, 7, 7), (2, 130, 13, 11), (1, 64, 28, 28)]


def in_layout(layout: str, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    images, channels, height, width = shape
    if layout == "sliced":
        wide = torch.randn(2, images, 2 * channels, height, width + 3).to(dtype)
        acts, grads = wide[:, :, ::2, :, 1 : width + 1]
    elif layout == "transposed":
        acts, grads = torch.randn(2, images, channels, width, height).to(dtype).transpose(-1, -2)
    elif layout == "expanded":
        acts, grads = torch.randn(2, 1, channels, height, 1).to(dtype).expand(2, *shape)
    else:
        acts, grads = torch.randn(2, *shape).to(dtype)
        if layout in ("channels_last", "mixed"):
            grads = grads.contiguous(memory_format=torch.channels_last)
        if layout == "channels_last":
            acts = acts.contiguous(memory_format=torch.channels_last)
    assert acts.shape == grads.shape == shape
    return acts, grads


# Exact numbers


def test_a_case_worked_by_hand() -> None:
    acts = torch.tensor([[[[2.0, 1.0], [0.5, -3.0]], [[3.0, -4.0], [4.0, 1.0]]]])
    grads = torch.tensor([[[[1.0, 1.0], [2.0, 1.0]], [[-1.0, 0.5], [0.25, 2.0]]]])
    # 2*1 + 3*0 = 2;  1*1 - 4*0.5 = -1 -> 0;  0.5*2 + 4*0.25 = 2;  -3*1 + 1*2 = -1 -> 0
    assert aggregate(acts, grads).tolist() == [[[2.0, 0.0], [2.0, 0.0]]]


def test_half_products_and_sums_are_float32() -> None:
    acts = torch.full((1, 4, 1, 1), 60000.0, dtype=torch.float16)
    assert aggregate(acts, torch.full_like(acts, 2.0)).item() == 4 * (acts[0, 0, 0, 0].item() * 2)
    ones = torch.ones(1, 1001, 1, 1, dtype=torch.bfloat16)  # 1001 has no bfloat16
    assert aggregate(ones, ones).item() == 1001


# Against the reference


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_reference(shape, layout, dtype, assert_close, poisoned) -> None:
    acts, grads = in_layout(layout, shape, dtype)
    kept = acts.clone(), grads.clone()
    maps = aggregate(acts, grads)
    assert maps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert maps.is_contiguous()
    assert_close(maps, aggregate_reference(acts.double(), grads.double()))
    assert_close(maps, aggregate_reference(acts, grads))
    assert torch.equal(acts, kept[0])
    assert torch.equal(grads, kept[1])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "mixed", "sliced"])
@pytest.mark.parametrize(("shape", "step"), [((5, 96, 60, 64), 2), ((2, 96, 112, 113), 0)])
def test_equals_the_reference_over_several_blocks(shape, step, layout, dtype, assert_close, poisoned) -> None:
    assert AGGREGATE_BLOCK // (shape[1] * shape[2] * shape[3]) == step, "the shape no longer spans blocks"
    acts, grads = in_layout(layout, shape, dtype)
    assert_close(aggregate(acts, grads), aggregate_reference(acts.double(), grads.double()))


def test_an_empty_batch() -> None:
    assert aggregate(torch.ones(0, 3, 4, 5), torch.ones(0, 3, 4, 5)).shape == (0, 4, 5)


# Laws


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 2**31),
    exponent=st.integers(-20, 20),
)
def test_laws_that_hold_to_the_bit(shape, seed, exponent) -> None:
    generator = torch.Generator().manual_seed(seed)
    acts = torch.randn(shape, generator=generator)
    grads = torch.randn(shape, generator=generator)
    maps = aggregate(acts, grads)
    assert (maps >= 0).all()
    assert torch.equal(aggregate(acts, grads.clamp_min(0)), maps)  # a falling channel counts for nothing
    assert torch.equal(aggregate(acts, grads * 2.0**exponent), maps * 2.0**exponent)
    assert torch.equal(aggregate(acts * 2.0**exponent, grads), maps * 2.0**exponent)
    assert not aggregate(acts, -grads.abs()).any()
    assert not aggregate(-acts.abs(), grads).any()
    assert torch.equal(aggregate(acts.flip(0), grads.flip(0)), maps.flip(0))


def test_the_order_of_channels_does_not_count(dtype, assert_close) -> None:
    acts, grads = in_layout("contiguous", (2, 65, 6, 5), dtype)
    order = torch.randperm(65)
    assert_close(aggregate(acts[:, order], grads[:, order]), aggregate(acts, grads))


def test_maps_of_non_negative_channels_add_up(dtype, assert_close) -> None:
    acts, grads = in_layout("contiguous", (2, 40, 6, 5), dtype)
    acts = acts.abs()
    parts = aggregate(acts[:, :13], grads[:, :13]) + aggregate(acts[:, 13:], grads[:, 13:])
    assert_close(aggregate(acts, grads), parts)


def test_nan_stays_in_its_cell() -> None:
    acts, grads = in_layout("contiguous", (2, 3, 4, 5), torch.float32)
    acts[1, 2, 3, 4] = torch.nan
    expected = torch.zeros(2, 4, 5, dtype=torch.bool)
    expected[1, 3, 4] = True
    assert torch.equal(aggregate(acts, grads).isnan(), expected)


def test_the_result_carries_no_gradient() -> None:
    acts = torch.randn(1, 2, 3, 3, requires_grad=True)
    assert not aggregate(acts, acts).requires_grad


# Batch equals loop


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "mixed"])
@pytest.mark.parametrize(
    "shape", [(5, 3, 5, 7), (9, 512, 7, 7), (300, 513, 1, 1), (17, 64, 28, 28), (4, 64, 112, 112)]
)
def test_batch_equals_loop_to_the_bit(shape, layout, threads) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        acts, grads = in_layout(layout, shape, dtype)
        batch = aggregate(acts, grads)
        for part in (1, 3):
            pieces = [aggregate(a, g) for a, g in zip(acts.split(part), grads.split(part), strict=True)]
            assert torch.equal(torch.cat(pieces), batch)


# The operator


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout, dtype) -> None:
    torch.library.opcheck(torch.ops.leamfast.aggregate.default, in_layout(layout, (2, 3, 5, 7), dtype))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_into_one_graph(backend) -> None:
    compiled = torch.compile(
        lambda acts, grads: 2 * aggregate(acts * 1.5, grads), fullgraph=True, backend=backend, dynamic=True
    )
    for shape in [(2, 3, 5, 7), (3, 4, 6, 5)]:
        acts, grads = in_layout("contiguous", shape, torch.float32)
        assert torch.equal(compiled(acts, grads), 2 * aggregate(acts * 1.5, grads))


# Statistics


@pytest.mark.parametrize("layout", LAYOUTS)
def test_statistics_are_those_of_the_maps(layout, dtype, poisoned) -> None:
    acts, grads = in_layout(layout, (5, 33, 7, 6), dtype)
    maps, maxima, sums = aggregate_statistics(acts, grads)
    assert torch.equal(maps, aggregate(acts, grads))
    assert torch.equal(maxima, maps.flatten(1).max(dim=1).values)
    torch.testing.assert_close(sums, maps.flatten(1).sum(dim=1))
    torch.library.opcheck(torch.ops.leamfast.aggregate_statistics.default, (acts, grads))


def test_statistics_compile_into_one_graph_and_refuse_bad_input() -> None:
    acts, grads = in_layout("contiguous", (2, 3, 5, 7), torch.float32)
    compiled = torch.compile(aggregate_statistics, fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(acts, grads), aggregate_statistics(acts, grads), strict=True):
        assert torch.equal(one, other)
    assert [len(x) for x in aggregate_statistics(acts[:0], grads[:0])] == [0, 0, 0]
    with pytest.raises(ValueError, match="^grads must have the shape of acts"):
        aggregate_statistics(acts, grads[:1])


# Bad input

GOOD = torch.ones(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("acts", "grads", "error", "message"),
    [
        (GOOD.numpy(), GOOD, TypeError, r"^acts must be a torch.Tensor, got ndarray$"),
        (GOOD, None, TypeError, r"^grads must be a torch.Tensor, got NoneType$"),
        (GOOD.int(), GOOD.int(), TypeError, r"^acts must be float32, .* got torch.int32$"),
        (GOOD[0], GOOD[0], ValueError, r"^acts must have shape \(N, C, h, w\).* got \(3, 4, 5\)$"),
        (GOOD[:, :0], GOOD[:, :0], ValueError, r"^acts must have shape .* got \(2, 0, 4, 5\)$"),
        (GOOD, GOOD[:1], ValueError, r"^grads must have the shape of acts .*, got \(1, 3, 4, 5\)$"),
        (GOOD, GOOD.half(), ValueError, r"^grads must have the dtype of acts, .*, got torch.float16$"),
        (GOOD, GOOD.to("meta"), ValueError, r"^grads must be on the device of acts, cpu, got meta$"),
    ],
)
def test_bad_input(acts, grads, error, message) -> None:
    with pytest.raises(error, match=message):
        aggregate(acts, grads)

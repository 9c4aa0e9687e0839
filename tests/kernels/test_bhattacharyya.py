"""bhattacharyya, bhattacharyya_matrix and bhattacharyya_tiles: BC = sum of sqrt(p q) of normalised maps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leamfast_kernels import (
    bhattacharyya,
    bhattacharyya_matrix,
    bhattacharyya_matrix_reference,
    bhattacharyya_reference,
    bhattacharyya_tiles,
)
from leamfast_kernels.tuning import ROOTS_BLOCK

PERCENTS = [None, 100, 40, 7.5]
LAYOUTS = ["contiguous", "transposed", "sliced", "expanded", "last"]
SHAPES = [(1, 1), (3, 5), (1, 33), (31, 29)]


def some_maps(*shape: int, levels: int | None = None) -> Tensor:
    """Maps with zeros, as a ReLU leaves them; `levels` makes equal values."""
    maps = (torch.randn(*shape) + 0.3).clamp_min(0)
    return maps if levels is None else (maps * levels / 3).round()


def in_layout(layout: str, count: int, cells: tuple[int, int], dtype: torch.dtype) -> Tensor:
    height, width = cells
    if layout == "transposed":
        maps = some_maps(count, width, height).to(dtype).mT
    elif layout == "sliced":
        maps = some_maps(2 * count, height, width + 2).to(dtype)[::2, :, 1:-1]
    elif layout == "expanded":
        maps = some_maps(count, height, 1).to(dtype).expand(count, height, width)
    elif layout == "last":
        maps = some_maps(height, width, count).to(dtype).permute(2, 0, 1)
    else:
        maps = some_maps(count, height, width).to(dtype)
    assert maps.shape == (count, height, width)
    return maps


def some_pairs(count: int, rows: int, columns: int) -> Tensor:
    return torch.stack([torch.randint(rows, (count,)), torch.randint(columns, (count,))], dim=1)


def same(found: Tensor, wanted: Tensor) -> bool:
    return torch.equal(found.nan_to_num(-1), wanted.nan_to_num(-1))


# Exact numbers


def test_a_case_worked_by_hand() -> None:
    p = torch.tensor([[[1.0, 3.0]], [[0.0, 2.0]], [[4.0, 5.0]]])
    q = torch.tensor([[[3.0, 1.0]], [[5.0, 0.0]], [[8.0, 10.0]]])
    # (sqrt(1*3) + sqrt(3*1)) / sqrt(4*4);  nothing in common;  the same but for its scale
    found = bhattacharyya(p, q)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([math.sqrt(3) / 2, 0.0, 1.0]))
    # Of p_2 and q_0: sqrt(4*3 / (9*4)) + sqrt(5*1 / (9*4));  of p_0 and q_1: sqrt(1*5 / (4*5))
    pairs = torch.tensor([[2, 0], [0, 1], [2, 0]])
    apart = math.sqrt(1 / 3) + math.sqrt(5) / 6
    torch.testing.assert_close(bhattacharyya(p, q, pairs), torch.tensor([apart, 0.5, apart]))
    matrix = bhattacharyya_matrix(p, q)
    torch.testing.assert_close(matrix[2, 0].item(), apart)
    torch.testing.assert_close(matrix[0, 1].item(), 0.5)


def test_supports_keep_their_values_and_are_normalised_anew() -> None:
    p = torch.tensor([[[4.0, 2.0], [2.0, 9.0]]])
    q = torch.tensor([[[1.0, 5.0], [5.0, 4.0]]])
    # Half of 4 pixels: 9 and 4 of p; the first 5 and the other of q. They have no pixel, or one, in common.
    assert bhattacharyya(p, q, percent=50).item() == 0
    # 75 percent: 9, 4 and the first 2 of p; 5, 5 and 4 of q: sqrt(2*5) + sqrt(9*4) over sqrt(15 * 14).
    wanted = (math.sqrt(10) + 6) / math.sqrt(15 * 14)
    torch.testing.assert_close(bhattacharyya(p, q, percent=75).item(), wanted)
    torch.testing.assert_close(bhattacharyya_matrix(p, q, percent=75).item(), wanted)


@pytest.mark.parametrize("percent", PERCENTS)
@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf, -torch.inf, -1.0, 0.0])
def test_a_map_that_is_no_distribution_gives_nan_and_no_other_does(bad, percent) -> None:
    maps = some_maps(5, 9, 9) + 0.1
    clean = bhattacharyya_matrix(maps, maps + 1, percent)
    assert not clean.isnan().any()
    if bad == 0:
        maps[3] = 0
    else:
        maps[3, 4, 4] = bad
    wanted = torch.zeros(5, 5, dtype=torch.bool)
    wanted[3] = True
    found = bhattacharyya_matrix(maps, some_maps(5, 9, 9) + 0.1, percent)
    assert torch.equal(found.isnan(), wanted)
    assert torch.equal(bhattacharyya_matrix(maps, percent=percent).isnan(), wanted | wanted.T)
    assert torch.equal(bhattacharyya(maps, torch.ones(5, 9, 9), percent=percent).isnan(), wanted[:, 0])
    assert same(bhattacharyya_reference(maps, maps, percent=percent).isnan().float(), wanted[:, 0].float())


def test_a_support_of_no_pixel_gives_nan() -> None:
    assert bhattacharyya(torch.ones(2, 3, 3), torch.ones(2, 3, 3), percent=1).isnan().all()
    assert bhattacharyya_matrix(torch.ones(2, 3, 3), percent=1).isnan().all()


# Against the reference


@pytest.mark.parametrize("percent", PERCENTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cells", SHAPES, ids=str)
def test_equals_the_reference(cells, layout, percent, dtype, assert_close, poisoned) -> None:
    p, q = in_layout(layout, 6, cells, dtype), in_layout("contiguous", 6, cells, dtype)
    kept = p.clone(), q.clone()
    pairs = some_pairs(11, 6, 6)
    of_rows = bhattacharyya(p, q, percent=percent)
    assert of_rows.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(of_rows, bhattacharyya_reference(p, q, percent=percent))
    assert_close(bhattacharyya(p, q, pairs, percent), bhattacharyya_reference(p, q, pairs, percent))
    for tile in (2048, 4, 1):
        wanted = bhattacharyya_matrix_reference(p, q[:5], percent)
        assert_close(bhattacharyya_matrix(p, q[:5], percent, tile), wanted)
        assert_close(
            bhattacharyya_matrix(p, None, percent, tile), bhattacharyya_matrix_reference(p, p, percent)
        )
    assert torch.equal(p, kept[0])
    assert torch.equal(q, kept[1])


@pytest.mark.parametrize("percent", [None, 20])
def test_equals_the_reference_over_several_blocks(percent, dtype, assert_close, poisoned) -> None:
    assert ROOTS_BLOCK // 300**2 == 2, "the shape no longer spans blocks"
    p, q = some_maps(5, 300, 300).to(dtype), some_maps(5, 300, 300).to(dtype)
    assert_close(bhattacharyya(p, q, percent=percent), bhattacharyya_reference(p, q, percent=percent))
    pairs = some_pairs(7, 5, 5)
    assert_close(bhattacharyya(p, q, pairs, percent), bhattacharyya_reference(p, q, pairs, percent))
    assert_close(bhattacharyya_matrix(p, q, percent), bhattacharyya_matrix_reference(p, q, percent))


def test_equal_pixels_enter_a_support_by_their_index() -> None:
    p, q = some_maps(9, 12, 13, levels=3), some_maps(9, 12, 13, levels=2)
    for percent in (5, 20, 60):
        torch.testing.assert_close(
            bhattacharyya(p, q, percent=percent),
            bhattacharyya_reference(p, q, percent=percent),
            equal_nan=True,
        )


@pytest.mark.parametrize("scale", [1e-38, 1e-44, 5e34])
def test_sums_and_products_neither_overflow_nor_underflow(scale) -> None:
    p, q = some_maps(4, 56, 56) * 1000 * scale, some_maps(4, 56, 56) * 1000 * scale
    assert p.isfinite().all()
    assert (p > 0).any()
    for percent in (None, 10):
        torch.testing.assert_close(
            bhattacharyya(p, q, percent=percent), bhattacharyya_reference(p, q, percent=percent)
        )
        torch.testing.assert_close(
            bhattacharyya_matrix(p, q, percent), bhattacharyya_matrix_reference(p, q, percent)
        )


def test_float64_maps_are_compared_in_float64() -> None:
    p, q = some_maps(3, 9, 9).double() * 1e200, some_maps(3, 9, 9).double() * 1e-200
    torch.testing.assert_close(bhattacharyya(p, q), bhattacharyya_reference(p, q), rtol=1e-13, atol=0)
    assert (
        bhattacharyya(p, p, percent=50).isnan().all()
    )  # supports are found in float32, where this overflows


def test_empty_batches() -> None:
    none, some = torch.ones(0, 3, 4), torch.ones(2, 3, 4)
    for percent in (None, 20):
        assert bhattacharyya(none, none, percent=percent).shape == (0,)
        assert bhattacharyya(some, some, torch.empty(0, 2, dtype=torch.int64), percent).shape == (0,)
        assert bhattacharyya_matrix(none, some, percent).shape == (0, 2)
        assert bhattacharyya_matrix(some, none, percent).shape == (2, 0)
        assert bhattacharyya_matrix(none, percent=percent).shape == (0, 0)
    assert list(bhattacharyya_tiles(none, some)) == []
    with pytest.raises(ValueError, match=r"^pairs must hold rows of p from 0 to -1, got 0$"):
        bhattacharyya(none, some, torch.zeros(1, 2, dtype=torch.int64))


# Laws


@settings(deadline=None, max_examples=60)
@given(
    cells=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    count=st.integers(1, 5),
    levels=st.none() | st.integers(1, 6),
    percent=st.none() | st.floats(0.01, 100),
    tile=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    exponent=st.integers(-30, 30),
)
def test_laws(cells, count, levels, percent, tile, seed, exponent) -> None:
    torch.manual_seed(seed)
    p, q = some_maps(count, *cells, levels=levels), some_maps(count, *cells, levels=levels)
    found = bhattacharyya(p, q, percent=percent)
    missing = found.isnan()
    assert ((found[~missing] >= 0) & (found[~missing] <= 1)).all()
    assert same(bhattacharyya(q, p, percent=percent), found)
    own = bhattacharyya(p, p, percent=percent)
    torch.testing.assert_close(own, torch.where(own.isnan(), torch.nan, 1.0), equal_nan=True)
    # An even power of two scales the roots without rounding, any other up to it.
    torch.testing.assert_close(
        bhattacharyya(p * 2.0**exponent, q * 3, percent=percent), found, equal_nan=True
    )
    matrix = bhattacharyya_matrix(p, q, percent, tile)
    torch.testing.assert_close(matrix.diagonal(), found, equal_nan=True)
    torch.testing.assert_close(bhattacharyya_matrix(q, p, percent, tile), matrix.T, equal_nan=True)
    symmetric = bhattacharyya_matrix(p, p, percent, tile)
    assert same(symmetric, symmetric.T)
    assert not (symmetric > 1).any()


def test_a_permutation_of_the_pixels_does_not_count() -> None:
    p, q = some_maps(3, 1, 100), some_maps(3, 1, 100)
    order = torch.randperm(100)
    torch.testing.assert_close(bhattacharyya(p[:, :, order], q[:, :, order]), bhattacharyya(p, q))


def test_parts_of_a_map_that_do_not_overlap() -> None:
    p = some_maps(1, 6, 6) + 0.1
    top, bottom = p.clone(), p.clone()
    top[:, 3:], bottom[:, :3] = 0, 0
    assert bhattacharyya(top, bottom).item() == 0
    torch.testing.assert_close(bhattacharyya(p, top), (top.sum() / p.sum()).sqrt()[None])


# Batch equals loop


@pytest.mark.parametrize("percent", [None, 10])
def test_batch_equals_loop(percent, threads) -> None:
    p, q = some_maps(40, 28, 28), some_maps(40, 28, 28)
    pairs = some_pairs(60, 40, 40)
    batch = bhattacharyya(p, q, pairs, percent)
    alone = [bhattacharyya(p[i : i + 1], q[j : j + 1], percent=percent) for i, j in pairs.tolist()]
    torch.testing.assert_close(torch.cat(alone), batch, rtol=1e-6, atol=1e-7)
    rows = bhattacharyya(p[pairs[:, 0]], q[pairs[:, 1]], percent=percent)
    torch.testing.assert_close(rows, batch, rtol=1e-6, atol=1e-7)
    matrix = bhattacharyya_matrix(p, q, percent)
    torch.testing.assert_close(matrix[pairs[:, 0], pairs[:, 1]], batch, rtol=1e-6, atol=1e-6)


# The operators


@pytest.mark.parametrize("percent", [None, 30.0])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "expanded"])
def test_opcheck(layout, percent, dtype) -> None:
    torch.manual_seed(1)
    p, q = in_layout(layout, 4, (5, 6), dtype), in_layout("contiguous", 4, (5, 6), dtype)
    assert not bhattacharyya_matrix(p, q).isnan().any(), "opcheck takes NaN for a difference"
    ops = torch.ops.leamfast
    for pairs in (None, some_pairs(3, 4, 4)):
        torch.library.opcheck(ops.bhattacharyya.default, (p, q, pairs, percent))
    for other in (None, q[:3]):
        torch.library.opcheck(ops.bhattacharyya_matrix.default, (p, other, percent, 3))
    torch.library.opcheck(ops.support_keys.default, (p, 9))
    for lowest in (None, ops.support_keys(p, 9)):
        torch.library.opcheck(ops.unit_roots.default, (p, lowest))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("percent", [None, 30])
def test_compiles_into_one_graph(percent, backend) -> None:
    @torch.compile(fullgraph=True, backend=backend, dynamic=True)
    def compiled(p: Tensor, q: Tensor, pairs: Tensor) -> tuple[Tensor, ...]:
        return (
            2 * bhattacharyya(p + 1, q, percent=percent),
            bhattacharyya(p, q, pairs, percent),
            bhattacharyya_matrix(p, q, percent),
            bhattacharyya_matrix(p, p, percent),
        )

    for count in (4, 5):
        p, q, pairs = some_maps(count, 5, 6), some_maps(count, 5, 6), some_pairs(7, count, count)
        wanted = (
            2 * bhattacharyya(p + 1, q, percent=percent),
            bhattacharyya(p, q, pairs, percent),
            bhattacharyya_matrix(p, q, percent),
            bhattacharyya_matrix(p, None, percent),
        )
        for found, expected in zip(compiled(p, q, pairs), wanted, strict=True):
            assert same(found, expected)


def test_the_result_carries_no_gradient() -> None:
    p = torch.rand(2, 3, 3, requires_grad=True)
    assert not bhattacharyya(p, p).requires_grad
    assert not bhattacharyya_matrix(p).requires_grad
    assert not any(block.requires_grad for _, _, block in bhattacharyya_tiles(p))


# Bad input

GOOD = torch.ones(2, 3, 4)
PAIRS = torch.zeros(5, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("p", "q", "error", "message"),
    [
        (GOOD.numpy(), GOOD, TypeError, r"^p must be a torch.Tensor, got ndarray$"),
        (GOOD, [1], TypeError, r"^q must be a torch.Tensor, got list$"),
        (GOOD.int(), GOOD, TypeError, r"^p must be float32, .* got torch.int32$"),
        (GOOD[0], GOOD, ValueError, r"^p must have shape \(N, h, w\) with h, w > 0, got \(3, 4\)$"),
        (GOOD[:, :0], GOOD, ValueError, r"^p must have shape .* got \(2, 0, 4\)$"),
        (GOOD, GOOD.mT, ValueError, r"^q must have maps of \(3, 4\) cells as p has, got \(4, 3\)$"),
        (GOOD, GOOD.half(), ValueError, r"^q must have the dtype of p, torch.float32, got torch.float16$"),
        (GOOD, GOOD.to("meta"), ValueError, r"^q must be on the device of p, cpu, got meta$"),
    ],
)
def test_bad_maps(p, q, error, message) -> None:
    for function in (bhattacharyya, bhattacharyya_matrix, bhattacharyya_tiles):
        with pytest.raises(error, match=message):
            function(p, q)


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        (None, ValueError, r"^q must have as many maps as p, 2, where no pairs are given, got 3$"),
        ([(0, 0)], TypeError, r"^pairs must be an int64 tensor, got list$"),
        (PAIRS.int(), TypeError, r"^pairs must be an int64 tensor, got torch.int32$"),
        (PAIRS.T, ValueError, r"^pairs must have shape \(K, 2\), .*, got \(2, 5\)$"),
        (PAIRS[:, 0], ValueError, r"^pairs must have shape \(K, 2\), .*, got \(5,\)$"),
        (PAIRS.to("meta"), ValueError, r"^pairs must be on the device of p, cpu, got meta$"),
        (PAIRS - 1, ValueError, r"^pairs must hold rows of p from 0 to 1, got -1$"),
        (PAIRS + torch.tensor([2, 0]), ValueError, r"^pairs must hold rows of p from 0 to 1, got 2$"),
        (PAIRS + torch.tensor([0, 3]), ValueError, r"^pairs must hold rows of q from 0 to 2, got 3$"),
    ],
)
def test_bad_pairs(pairs, error, message) -> None:
    with pytest.raises(error, match=message):
        bhattacharyya(GOOD, torch.ones(3, 3, 4), pairs)


@pytest.mark.parametrize(
    ("percent", "error", "message"),
    [
        (0, ValueError, r"^percent must lie in \(0, 100\], got 0$"),
        (-5, ValueError, r"^percent must lie in \(0, 100\], got -5$"),
        (100.5, ValueError, r"^percent must lie in \(0, 100\], got 100.5$"),
        (math.nan, ValueError, r"^percent must lie in \(0, 100\], got nan$"),
        ("5", TypeError, r"^percent must be None or a number in \(0, 100\], got '5'$"),
        ([5], TypeError, r"^percent must be None or a number in \(0, 100\], got \[5\]$"),
        (True, TypeError, r"^percent must be None or a number in \(0, 100\], got True$"),
    ],
)
def test_a_bad_percentage(percent, error, message) -> None:
    for function in (bhattacharyya, bhattacharyya_matrix, bhattacharyya_tiles):
        with pytest.raises(error, match=message):
            function(GOOD, GOOD, percent=percent)


def test_a_bad_tile() -> None:
    for function in (bhattacharyya_matrix, bhattacharyya_tiles):
        with pytest.raises(ValueError, match=r"^tile must be at least 1, got 0$"):
            function(GOOD, GOOD, tile=0)
        with pytest.raises(TypeError, match=r"^tile must be an int, got 2.0$"):
            function(GOOD, GOOD, tile=2.0)

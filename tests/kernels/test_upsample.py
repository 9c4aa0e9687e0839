"""upsample: bilinear maps at the input size, resized or from the centres of the cells."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from leamfast_kernels import upsample

SIZES = [((1, 1), (4, 4)), ((2, 3), (5, 7)), ((7, 7), (112, 112)), ((28, 14), (30, 31)), ((9, 9), (9, 9))]
CENTRES = ((0.0, 16.0), (3.5, 4.25))


def resize_centres(cells: tuple[int, int], size: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    steps = [pixels / number for number, pixels in zip(cells, size, strict=True)]
    return tuple(((step - 1) / 2, step) for step in steps)


# Exact numbers


def test_a_resize_worked_by_hand() -> None:
    # Cells at pixels 0.5 and 2.5: pixel 1 is a quarter of the way, pixel 0 and 3 lie outside and repeat.
    assert upsample(torch.tensor([[[0.0, 4.0]]]), (1, 4)).tolist() == [[[0.0, 1.0, 3.0, 4.0]]]


def test_centres_worked_by_hand() -> None:
    maps = torch.tensor([[[0.0, 8.0], [16.0, 24.0]]])
    # Columns at pixels 1 and 3, rows at pixels 0 and 4; pixels outside repeat the edge.
    top = torch.tensor([0.0, 0.0, 4.0, 8.0, 8.0])
    expected = torch.stack([top, top + 4, top + 8, top + 12, top + 16])
    assert torch.equal(upsample(maps, 5, centres=((0, 4), (1, 2)))[0], expected)


def test_a_stride_two_convolution_centres_cell_i_on_pixel_2i() -> None:
    ramp = torch.arange(0.0, 112.0)
    cells = ramp[::16].expand(1, 7, 7)  # what four 3x3 stride-2 pad-1 convolutions look at: pixels 0, 16, ..
    at_centres = upsample(cells, 112, centres=((0, 16), (0, 16)))[0, 0]
    assert torch.equal(at_centres[:97], ramp[:97])
    assert (upsample(cells, 112)[0, 0] - ramp)[8:96].abs().max() == 7.5


# Against the reference


@pytest.mark.parametrize(("cells", "size"), SIZES)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "sliced", "expanded"])
def test_equals_the_reference(cells, size, layout, dtype, assert_close, poisoned) -> None:
    maps = torch.rand(3, *cells).to(dtype)
    if layout == "transposed":
        maps = maps.mT.contiguous().mT
    elif layout == "sliced":
        maps = torch.rand(6, cells[0], cells[1] + 2).to(dtype)[::2, :, 1:-1]
    elif layout == "expanded":
        maps = maps[:1].expand(3, -1, -1)
    expected = F.interpolate(maps.double()[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    plain = upsample(maps, size)
    placed = upsample(maps, size, centres=resize_centres(cells, size))
    for result in (plain, placed):
        assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert result.is_contiguous()
        assert_close(result, expected)


def test_centres_equal_plain_interpolation_point_by_point() -> None:
    maps = torch.rand(2, 5, 4, dtype=torch.float64)
    result = upsample(maps, (13, 11), centres=((-1.5, 2.25), (4.0, 0.75)))
    for y in range(13):
        for x in range(11):
            row, column = min(max((y + 1.5) / 2.25, 0), 4), min(max((x - 4.0) / 0.75, 0), 3)
            top, left = int(row), int(column)
            below, right = min(top + 1, 4), min(left + 1, 3)
            v, u = row - top, column - left
            upper = (1 - u) * maps[:, top, left] + u * maps[:, top, right]
            lower = (1 - u) * maps[:, below, left] + u * maps[:, below, right]
            torch.testing.assert_close(result[:, y, x], (1 - v) * upper + v * lower)


def test_the_result_is_a_new_tensor() -> None:
    maps = torch.rand(2, 5, 5, requires_grad=True)
    for centres in (None, ((0, 1), (0, 1))):
        result = upsample(maps, 5, centres)
        assert result.data_ptr() != maps.data_ptr()
        assert not result.requires_grad
        assert torch.equal(result, maps)


def test_an_empty_batch() -> None:
    for centres in (None, CENTRES):
        assert upsample(torch.ones(0, 3, 4), (5, 6), centres).shape == (0, 5, 6)


# Laws


@settings(deadline=None, max_examples=40)
@given(
    cells=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    axes=st.none() | st.tuples(*2 * [st.tuples(st.floats(-9, 9), st.floats(0.1, 9))]),
    seed=st.integers(0, 2**31),
)
def test_range_and_symmetry(cells, size, axes, seed) -> None:
    maps = torch.rand(2, *cells, generator=torch.Generator().manual_seed(seed))
    result = upsample(maps, size, axes)
    assert (result.amax((1, 2)) <= maps.amax((1, 2)) + 1e-6).all()
    assert (result.amin((1, 2)) >= maps.amin((1, 2)) - 1e-6).all()
    other_way = axes and (axes[1], axes[0])
    torch.testing.assert_close(upsample(maps.mT, size[::-1], other_way), result.mT)
    assert torch.equal(upsample(maps * 0.25, size, axes), result * 0.25)


# Batch equals loop


@pytest.mark.parametrize("centres", [None, CENTRES])
@pytest.mark.parametrize(("cells", "size"), SIZES)
def test_batch_equals_loop_to_the_bit(cells, size, centres, threads) -> None:
    maps = torch.randn(70, *cells)
    batch = upsample(maps, size, centres)
    for part in (1, 3):
        assert torch.equal(torch.cat([upsample(piece, size, centres) for piece in maps.split(part)]), batch)


# Compiling (upsample is plain torch, no operator of its own)


@pytest.mark.parametrize("centres", [None, CENTRES])
def test_compiles_into_one_graph(centres) -> None:
    maps = torch.rand(3, 7, 6)
    compiled = torch.compile(lambda m: upsample(m, (20, 24), centres), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(maps), upsample(maps, (20, 24), centres))


# Bad input

GOOD = torch.ones(2, 3, 4)


@pytest.mark.parametrize(
    ("maps", "size", "centres", "error", "message"),
    [
        (GOOD.numpy(), 8, None, TypeError, r"^maps must be a torch.Tensor, got ndarray$"),
        (GOOD.long(), 8, None, TypeError, r"^maps must be float32, .* got torch.int64$"),
        (GOOD[0], 8, None, ValueError, r"^maps must have shape \(N, h, w\) .* got \(3, 4\)$"),
        (GOOD[:, :0], 8, None, ValueError, r"^maps must have shape .* got \(2, 0, 4\)$"),
        (GOOD, 8.0, None, TypeError, r"^size must be an int or a pair .* got 8.0$"),
        (GOOD, (8, 8, 8), None, TypeError, r"^size must be an int or a pair .* got \(8, 8, 8\)$"),
        (GOOD, True, None, TypeError, r"^size must be an int or a pair .* got True$"),
        (GOOD, (8, 0), None, ValueError, r"^size must be at least 1 pixel .* got \(8, 0\)$"),
        (GOOD, 8, (0, 2), TypeError, r"^centres must be None or \(\(offset_y, .* got \(0, 2\)$"),
        (GOOD, 8, ((0, 2), (0, "x")), TypeError, r"^centres must be None or .*'x'\)\)$"),
        (
            GOOD,
            8,
            ((0, 2), (0, 0)),
            ValueError,
            r"^centres must have finite .* above 0, got \(\(0, 2\), \(0, 0",
        ),
        (GOOD, 8, ((0, 2), (float("nan"), 1)), ValueError, r"^centres must have finite offsets .* got "),
    ],
)
def test_bad_input(maps, size, centres, error, message) -> None:
    with pytest.raises(error, match=message):
        upsample(maps, size, centres)

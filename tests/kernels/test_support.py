"""support: masks of the largest positive pixels of upsampled maps."""

from __future__ import annotations

import math
import os
import signal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leamfast_kernels import selection, support, support_reference, upsample
from leamfast_kernels.support import _support_cuda
from leamfast_kernels.tuning import SELECTION_BLOCK

PERCENTS = [1, 2, 5, 10, 20, 100]
CENTRES = ((0.0, 4.0), (1.5, 3.25))
SIZES = [((1, 1), (3, 5)), ((5, 3), (13, 17)), ((7, 7), (20, 30)), ((9, 9), (9, 9)), ((31, 5), (12, 11))]


def some_maps(*shape: int, levels: int | None = None) -> Tensor:
    """Maps with zeros, as a ReLU leaves them; `levels` makes equal values."""
    maps = (torch.randn(*shape) + 0.3).clamp_min(0)
    return maps if levels is None else (maps * levels / 3).round()


def flat(centres: tuple[tuple[float, float], tuple[float, float]] | None) -> list[float] | None:
    return None if centres is None else [number for axis in centres for number in axis]


# Exact numbers


def test_a_case_worked_by_hand() -> None:
    maps = torch.tensor([[[1.0, 5.0, 0.0], [3.0, -2.0, 4.0]]])
    masks = support(maps, [100 / 6, 50, 100, 67], (2, 3))  # 1, 3, 6 and 4 pixels, of which 4 are positive
    assert masks.dtype == torch.bool
    assert masks.int().tolist() == [
        [
            [[0, 1, 0], [0, 0, 0]],
            [[0, 1, 0], [1, 0, 1]],
            [[1, 1, 0], [1, 0, 1]],
            [[1, 1, 0], [1, 0, 1]],
        ]
    ]


def test_ties_go_to_the_lower_index() -> None:
    maps = torch.tensor([[[2.0, 7.0, 2.0, 7.0, 2.0, 2.0, 7.0, 0.0, 2.0, 0.0]]])
    masks = support(maps, [10, 20, 30, 50, 80], (1, 10))[0, :, 0]
    chosen = [mask.nonzero().flatten().tolist() for mask in masks]
    assert chosen == [[1], [1, 3], [1, 3, 6], [0, 1, 2, 3, 6], [0, 1, 2, 3, 4, 5, 6, 8]]


@pytest.mark.parametrize(
    ("pixels", "percent", "expected"), [(10, 25, 2), (10, 35, 4), (10, 4, 0), (10, 6, 1)]
)
def test_an_exact_half_goes_to_the_even_number(pixels, percent, expected) -> None:
    assert support(torch.rand(1, 1, pixels) + 1, [percent], (1, pixels)).sum() == expected


def test_a_map_without_positive_pixels_has_no_support() -> None:
    maps = torch.stack([torch.zeros(4, 4), -torch.rand(4, 4), torch.full((4, 4), -0.0)])
    assert not support(maps, PERCENTS, 8).any()


@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf, -torch.inf])
def test_a_map_that_is_not_finite_has_no_support(bad) -> None:
    maps = some_maps(3, 5, 5)
    expected = support(maps, PERCENTS, 20)
    expected[1] = False
    maps[1, 4, 4] = bad
    assert torch.equal(support(maps, PERCENTS, 20), expected)


# Against the reference


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "sliced", "expanded"])
@pytest.mark.parametrize(("cells", "size"), SIZES)
def test_equals_the_reference(cells, size, layout, levels, dtype, poisoned) -> None:
    maps = some_maps(4, *cells, levels=levels).to(dtype)
    if layout == "transposed":
        maps = maps.mT.contiguous().mT
    elif layout == "sliced":
        maps = some_maps(8, cells[0], cells[1] + 2, levels=levels).to(dtype)[::2, :, 1:-1]
    elif layout == "expanded":
        maps = maps[:1].expand(4, -1, -1)
    percents = [50, 1, 7.5, 100, 20, 99.9, 7.5, 0.01]
    for centres in (None, CENTRES):
        masks = support(maps, percents, size, centres)
        assert masks.is_contiguous()
        assert torch.equal(masks, support_reference(maps, percents, *size, flat(centres)))


def test_equals_the_reference_over_several_blocks(poisoned) -> None:
    maps = some_maps(5, 14, 14)
    assert SELECTION_BLOCK // 700**2 == 2, "the shape no longer spans blocks"
    assert torch.equal(support(maps, [3, 100], 700), support_reference(maps, [3, 100], 700, 700))


def test_an_empty_batch() -> None:
    assert support(torch.ones(0, 3, 4), PERCENTS, (5, 6)).shape == (0, 6, 5, 6)


def test_on_a_gpu_large_maps_go_without_a_kernel() -> None:
    side = 1 + math.isqrt(selection.HELD)
    maps = some_maps(2, 7, 7)
    assert torch.equal(_support_cuda(maps, [5.0, 100.0], side, side, None), support(maps, [5, 100], side))


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_keys_are_shared_among_threads(threads, monkeypatch) -> None:
    monkeypatch.setattr(selection, "ALONE", 1)
    selection._pool.cache_clear()
    keys = torch.randint(2**60, (5, 33))
    wanted = keys.sort(dim=1).values[:, -9:]
    found = selection.largest(keys, [2, 9])
    assert selection._pool.cache_info().currsize == threads - 1
    assert torch.equal(found.sort(dim=1).values, wanted)
    assert torch.equal(found[:, -2:].sort(dim=1).values, wanted[:, -2:])


def test_a_child_process_has_threads_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr(selection, "ALONE", 1)
    keys = torch.randint(2**60, (6, 40))
    selection.largest(keys.clone(), [3])  # starts threads, which a child does not have
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(
            0 if torch.equal(selection.largest(keys, [3]).sort(1).values, keys.sort(1).values[:, -3:]) else 1
        )
    assert os.waitpid(child, 0)[1] == 0


# Laws


@settings(deadline=None, max_examples=60)
@given(
    cells=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    percents=st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
    levels=st.none() | st.integers(1, 6),
    seed=st.integers(0, 2**31),
    exponent=st.integers(-60, 60),
)
def test_laws(cells, size, percents, levels, seed, exponent) -> None:
    torch.manual_seed(seed)
    maps = some_maps(3, *cells, levels=levels)
    values = upsample(maps, size)
    masks = support(maps, percents, size)
    positive = (values > 0).sum(dim=(1, 2))
    for percent, mask in zip(percents, masks.unbind(1), strict=True):
        wanted = round(percent / 100 * size[0] * size[1])
        assert torch.equal(mask.sum(dim=(1, 2)), positive.clamp_max(wanted))
        assert (values[mask] > 0).all()
        # No pixel outside is larger than one inside, nor equal and of lower index.
        for value, inside in zip(values.flatten(1), mask.flatten(1), strict=True):
            if inside.any() and not inside.all():
                least = value[inside].min()
                assert value[~inside].max() <= least
                ties = inside[value == least].int()
                assert torch.equal(ties, ties.sort(descending=True).values)
    assert torch.equal(support(maps * 2.0**exponent, percents, size), masks)  # scale does not count
    ascending = sorted(range(len(percents)), key=percents.__getitem__)
    for smaller, larger in zip(ascending, ascending[1:], strict=False):
        assert not (masks[:, smaller] & ~masks[:, larger]).any()  # supports are nested
    assert torch.equal(support(maps, percents[::-1], size), masks.flip(1))
    assert torch.equal(support(maps, [100], size)[:, 0], values > 0)


# Batch equals loop


@pytest.mark.parametrize("centres", [None, CENTRES])
@pytest.mark.parametrize("levels", [None, 3])
def test_batch_equals_loop(levels, centres, threads) -> None:
    maps = some_maps(100, 7, 7, levels=levels)
    batch = support(maps, PERCENTS, 112, centres)
    for part in (1, 30):
        pieces = [support(piece, PERCENTS, 112, centres) for piece in maps.split(part)]
        assert torch.equal(torch.cat(pieces), batch)


# The operator


@pytest.mark.parametrize("centres", [None, CENTRES])
def test_opcheck(centres, dtype) -> None:
    arguments = (some_maps(3, 4, 5).to(dtype), [5.0, 50.0, 100.0], 11, 12, flat(centres))
    torch.library.opcheck(torch.ops.leamfast.support.default, arguments)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_into_one_graph(backend) -> None:
    compiled = torch.compile(lambda maps: support(maps * 2, PERCENTS, 24), fullgraph=True, backend=backend)
    maps = some_maps(3, 6, 6)
    assert torch.equal(compiled(maps), support(maps * 2, PERCENTS, 24))


# Bad input

GOOD = torch.ones(2, 3, 4)


@pytest.mark.parametrize(
    ("maps", "percents", "size", "error", "message"),
    [
        ([[1.0]], [5], 8, TypeError, r"^maps must be a torch.Tensor, got list$"),
        (GOOD[0], [5], 8, ValueError, r"^maps must have shape \(N, h, w\) .* got \(3, 4\)$"),
        (GOOD, [], 8, ValueError, r"^percents must hold at least one number, .* got \[\]$"),
        (GOOD, [5, 0], 8, ValueError, r"^percents must hold .* in \(0, 100\], got \[5, 0\]$"),
        (GOOD, [100.5], 8, ValueError, r"^percents must hold .* got \[100.5\]$"),
        (GOOD, [float("nan")], 8, ValueError, r"^percents must hold .* got \[nan\]$"),
        (GOOD, 5, 8, TypeError, r"^percents must be a sequence of numbers .* got 5$"),
        (GOOD, ["all"], 8, TypeError, r"^percents must be a sequence of numbers .* got \['all'\]$"),
        (GOOD, [5], -1, ValueError, r"^size must be at least 1 pixel .* got -1$"),
    ],
)
def test_bad_input(maps, percents, size, error, message) -> None:
    with pytest.raises(error, match=message):
        support(maps, percents, size)


def test_bad_centres() -> None:
    with pytest.raises(ValueError, match="^centres must have finite offsets"):
        support(GOOD, [5], 8, centres=((0, 1), (0, -1)))

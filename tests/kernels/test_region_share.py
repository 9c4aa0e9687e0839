"""region_share: the fraction of each class in the support of a map, and at 100 percent in its mass."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leamfast_kernels import region_share, region_share_reference, selection, support, upsample
from leamfast_kernels.region_share import _region_share_cuda
from leamfast_kernels.tuning import SELECTION_BLOCK

PERCENTS = [1, 2, 5, 10, 20, 100]
CENTRES = ((0.0, 4.0), (1.5, 3.25))
SIZES = [((1, 1), (3, 5)), ((5, 3), (13, 17)), ((7, 7), (20, 30)), ((9, 9), (9, 9)), ((31, 5), (12, 11))]


def some_maps(*shape: int, levels: int | None = None) -> Tensor:
    """Maps with zeros, as a ReLU leaves them; `levels` makes equal values."""
    maps = (torch.randn(*shape) + 0.3).clamp_min(0)
    return maps if levels is None else (maps * levels / 3).round()


def some_labels(*shape: int, classes: int = 19) -> Tensor:
    return torch.randint(0, classes, shape, dtype=torch.uint8)


def flat(centres: tuple[tuple[float, float], tuple[float, float]] | None) -> list[float] | None:
    return None if centres is None else [number for axis in centres for number in axis]


# Exact numbers


def test_a_case_worked_by_hand() -> None:
    maps = torch.tensor([[[1.0, 5.0, 0.0], [3.0, -2.0, 1.0]]])
    labels = torch.tensor([[[0, 1, 2], [2, 2, 0]]], dtype=torch.uint8)
    shares, sizes = region_share(maps, labels, [50, 100, 100 / 3, 99], (2, 3), classes=3)
    # 3 pixels: 5 (class 1), 3 (class 2), the first 1 (class 0); mass 1 + 1, 5, 3 of 10; 2 pixels; 6 -> 4.
    third = 1 / 3
    expected = torch.tensor([[[third, third, third], [0.2, 0.5, 0.3], [0, 0.5, 0.5], [0.5, 0.25, 0.25]]])
    assert shares.dtype == torch.float32
    assert sizes.dtype == torch.int32
    assert torch.equal(shares, expected)
    assert sizes.tolist() == [[3, 4, 2, 4]]


def test_mass_is_added_in_float64() -> None:
    maps = torch.full((1, 512, 512), 1e-4)
    maps[0, 0, 0] = 2.0**24
    labels = torch.zeros(1, 512, 512, dtype=torch.uint8)
    labels[0, 0, 0] = 1
    shares, _ = region_share(maps, labels, [100], 512, classes=2)
    rest = (512**2 - 1) * maps[0, 1, 1].double()
    assert shares[0, 0, 0] == (rest / (rest + 2.0**24)).float()


def test_a_map_without_positive_pixels() -> None:
    maps = torch.stack([torch.zeros(4, 4), -torch.rand(4, 4), torch.rand(4, 4)])
    shares, sizes = region_share(maps, some_labels(3, 8, 8), PERCENTS, 8)
    assert not sizes[:2].any()
    assert shares[:2].isnan().all()
    assert sizes[2].tolist() == [1, 1, 3, 6, 13, 64]


def test_a_percent_of_no_pixel() -> None:
    shares, sizes = region_share(torch.rand(2, 3, 3), some_labels(2, 3, 3), [1, 100], 3)
    assert sizes.tolist() == [[0, 9], [0, 9]]
    assert shares[:, 0].isnan().all()
    assert not shares[:, 1].isnan().any()


@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf, -torch.inf])
def test_a_map_that_is_not_finite(bad) -> None:
    maps, labels = some_maps(3, 5, 5), some_labels(3, 20, 20)
    shares, sizes = region_share(maps, labels, PERCENTS, 20)
    shares[1], sizes[1] = torch.nan, -1
    maps[1, 4, 4] = bad
    got_shares, got_sizes = region_share(maps, labels, PERCENTS, 20)
    assert torch.equal(got_sizes, sizes)
    assert torch.equal(got_shares.isnan(), shares.isnan())
    assert torch.equal(got_shares.nan_to_num(), shares.nan_to_num())


# Against the reference


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "sliced", "expanded"])
@pytest.mark.parametrize(("cells", "size"), SIZES)
def test_equals_the_reference(cells, size, layout, levels, dtype, poisoned) -> None:
    maps, labels = some_maps(4, *cells, levels=levels).to(dtype), some_labels(4, *size)
    if layout == "transposed":
        maps, labels = maps.mT.contiguous().mT, labels.mT.contiguous().mT
    elif layout == "sliced":
        maps = some_maps(8, cells[0], cells[1] + 2, levels=levels).to(dtype)[::2, :, 1:-1]
        labels = some_labels(8, *size)[::2]
    elif layout == "expanded":
        maps, labels = maps[:1].expand(4, -1, -1), labels[:1].expand(4, -1, -1)
    percents = [50, 1, 7.5, 100, 20, 99.9, 7.5, 100, 0.01]
    counted = [column for column, percent in enumerate(percents) if percent != 100]
    for centres in (None, CENTRES):
        shares, sizes = region_share(maps, labels, percents, size, centres)
        expected, expected_sizes = region_share_reference(maps, labels, percents, *size, flat(centres))
        assert torch.equal(sizes, expected_sizes)
        assert torch.equal(shares[:, counted].nan_to_num(-1), expected[:, counted].nan_to_num(-1))
        # The mass is a sum in float64, taken in another order, and rounded once.
        torch.testing.assert_close(shares, expected, rtol=2e-7, atol=1e-12, equal_nan=True)


def test_equals_the_reference_over_several_blocks(poisoned) -> None:
    maps, labels = some_maps(5, 14, 14), some_labels(5, 700, 700)
    assert SELECTION_BLOCK // 700**2 == 2, "the shape no longer spans blocks"
    shares, sizes = region_share(maps, labels, [3, 100], 700)
    expected_shares, expected_sizes = region_share_reference(maps, labels, [3, 100], 700, 700)
    assert torch.equal(sizes, expected_sizes)
    torch.testing.assert_close(shares, expected_shares, rtol=2e-7, atol=0)


def test_all_256_classes() -> None:
    maps, labels = some_maps(2, 7, 7), some_labels(2, 40, 40, classes=256)
    shares, _ = region_share(maps, labels, PERCENTS, 40, classes=256)
    expected, _ = region_share_reference(maps, labels, PERCENTS, 40, 40, classes=256)
    torch.testing.assert_close(shares, expected, rtol=2e-7, atol=0)


def test_an_empty_batch() -> None:
    shares, sizes = region_share(torch.ones(0, 3, 4), some_labels(0, 5, 6), PERCENTS, (5, 6))
    assert shares.shape == (0, 6, 19)
    assert sizes.shape == (0, 6)


# Laws


@settings(deadline=None, max_examples=60)
@given(
    cells=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    percents=st.lists(st.floats(0.01, 100) | st.just(100.0), min_size=1, max_size=6),
    levels=st.none() | st.integers(1, 6),
    seed=st.integers(0, 2**31),
    exponent=st.integers(-60, 60),
)
def test_laws(cells, size, percents, levels, seed, exponent) -> None:
    torch.manual_seed(seed)
    maps, labels = some_maps(3, *cells, levels=levels), some_labels(3, *size)
    shares, sizes = region_share(maps, labels, percents, size)
    masks = support(maps, percents, size)
    assert torch.equal(sizes, masks.sum(dim=(2, 3)))  # the support is that of `support`
    assert torch.equal(shares.isnan().all(dim=2), sizes == 0)
    assert torch.equal(shares.isnan().any(dim=2), sizes == 0)
    some = sizes > 0
    torch.testing.assert_close(shares[some].sum(dim=1), torch.ones(int(some.sum())))
    assert ((shares[some] >= 0) & (shares[some] <= 1)).all()
    scaled = region_share(maps * 2.0**exponent, labels, percents, size)
    assert torch.equal(scaled[0].nan_to_num(-1), shares.nan_to_num(-1))  # scale does not count
    order = torch.randperm(19)
    renamed, _ = region_share(maps, order[labels.long()].to(torch.uint8), percents, size)
    assert torch.equal(renamed[:, :, order].nan_to_num(-1), shares.nan_to_num(-1))


def test_at_100_percent_the_mass_counts_and_at_99_the_pixels() -> None:
    maps, labels = torch.rand(2, 8, 8) ** 4, some_labels(2, 8, 8, classes=2)
    shares, _ = region_share(maps, labels, [100], 8, classes=2)
    values = upsample(maps, 8).double()
    for label in range(2):
        mass = (values * (labels == label)).sum(dim=(1, 2)) / values.sum(dim=(1, 2))
        torch.testing.assert_close(shares[:, 0, label], mass.float())


# Batch equals loop


@pytest.mark.parametrize("centres", [None, CENTRES])
@pytest.mark.parametrize("levels", [None, 3])
def test_batch_equals_loop_to_the_bit(levels, centres, threads) -> None:
    maps, labels = some_maps(100, 7, 7, levels=levels), some_labels(100, 112, 112)
    shares, sizes = region_share(maps, labels, PERCENTS, 112, centres)
    for part in (1, 30):
        pieces = [
            region_share(piece, label, PERCENTS, 112, centres)
            for piece, label in zip(maps.split(part), labels.split(part), strict=True)
        ]
        assert torch.equal(torch.cat([piece[0] for piece in pieces]), shares)
        assert torch.equal(torch.cat([piece[1] for piece in pieces]), sizes)


# The operator


@pytest.mark.parametrize("centres", [None, CENTRES])
def test_opcheck(centres, dtype) -> None:
    maps, labels = some_maps(3, 4, 5).to(dtype), some_labels(3, 11, 12)
    arguments = (maps, labels, [5.0, 50.0, 100.0], 11, 12, flat(centres), 19)
    torch.library.opcheck(torch.ops.leamfast.region_share.default, arguments)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_into_one_graph(backend) -> None:
    maps, labels = some_maps(3, 6, 6) + 0.1, some_labels(3, 24, 24)
    compiled = torch.compile(
        lambda maps, labels: region_share(maps * 2, labels, PERCENTS, 24), fullgraph=True, backend=backend
    )
    for got, expected in zip(
        compiled(maps, labels), region_share(maps * 2, labels, PERCENTS, 24), strict=True
    ):
        assert torch.equal(got, expected)


# Maps of more pixels than a kernel holds


@pytest.mark.parametrize("classes", [19, 255, 256])
def test_on_a_gpu_large_maps_go_without_a_kernel(classes) -> None:
    side = 1 + math.isqrt(selection.HELD)
    maps, labels = some_maps(3, 7, 7) + 0.1, some_labels(3, side, side, classes=classes)
    found = _region_share_cuda(maps, labels, [5.0, 100.0], side, side, None, classes)
    wanted = region_share(maps, labels, [5, 100], side, classes=classes)
    assert all(torch.equal(*both) for both in zip(found, wanted, strict=True))
    if classes < 256:  # no label of a byte is then foreign
        labels[1, 3, 4] = classes
        shares, sizes = _region_share_cuda(maps, labels, [5.0, 100.0], side, side, None, classes)
        assert shares[1].isnan().all()
        assert torch.equal(shares[[0, 2]], wanted[0][[0, 2]])
        assert torch.equal(sizes, wanted[1])


# Bad input

GOOD = torch.ones(2, 3, 4)
LABELS = torch.zeros(2, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((GOOD.int(), LABELS, [5], 8), TypeError, r"^maps must be float32, .* got torch.int32$"),
        ((GOOD, LABELS.long(), [5], 8), TypeError, r"^labels must be a uint8 tensor, got torch.int64$"),
        ((GOOD, None, [5], 8), TypeError, r"^labels must be a uint8 tensor, got NoneType$"),
        ((GOOD, LABELS, [5], 9), ValueError, r"^labels must have shape .* \(2, 9, 9\), got \(2, 8, 8\)$"),
        ((GOOD, LABELS[:1], [5], 8), ValueError, r"^labels must have shape .* got \(1, 8, 8\)$"),
        (
            (GOOD, LABELS.to("meta"), [5], 8),
            ValueError,
            r"^labels must be on the device of maps, cpu, got meta$",
        ),
        ((GOOD, LABELS + 19, [5], 8), ValueError, r"^labels must be below classes = 19, got 19$"),
        ((GOOD, LABELS + 255, [100], 8), ValueError, r"^labels must be below classes = 19, got 255$"),
        ((GOOD, LABELS, [101], 8), ValueError, r"^percents must hold .* got \[101\]$"),
        ((GOOD, LABELS, [5], 8, ((0, 1), (0, 0))), ValueError, r"^centres must have finite .* got "),
        ((GOOD, LABELS, [5], 8, None, 0), ValueError, r"^classes must lie in 1 to 256, got 0$"),
        ((GOOD, LABELS, [5], 8, None, 19.0), TypeError, r"^classes must be an int, got 19.0$"),
    ],
)
def test_bad_input(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        region_share(*arguments)

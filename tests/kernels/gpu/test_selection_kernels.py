"""The kernels of `support`, `region_share` and `occlude`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leamfast_kernels.region_share import region_share_reference
from leamfast_kernels.support import support_reference
from tests.kernels.gpu.agreement import assert_same_support
from tests.kernels.test_region_share import some_labels, some_maps

pytestmark = pytest.mark.gpu

PERCENTS = [50, 1, 7.5, 100, 20, 0.01]
CENTRES = [0.0, 4.0, 1.5, 3.25]
# One pixel; fewer pixels than a run; cells that no pixel lies next to; several runs.
SIZES = [((1, 1), (1, 1)), ((5, 3), (13, 17)), ((31, 5), (12, 11)), ((7, 7), (40, 44))]
KINDS = [
    (torch.float32, "contiguous"),
    (torch.float16, "transposed"),
    (torch.bfloat16, "sliced"),
    (torch.float64, "expanded"),
]
MIXED = [(*KINDS[(i + j) % 4], *sizes) for i, sizes in enumerate(SIZES) for j in (0, 1)]


def maps_of(count: int, cells: tuple[int, int], dtype: torch.dtype, layout: str) -> Tensor:
    maps = some_maps(count, *cells).to(dtype)
    if layout == "transposed":
        return maps.mT.contiguous().mT
    if layout == "sliced":
        return some_maps(2 * count, cells[0], cells[1] + 2).to(dtype)[::2, :, 1:-1]
    return maps[:1].expand(count, -1, -1) if layout == "expanded" else maps


def awkward_maps(*cells: int) -> Tensor:
    """Maps whose pixels, at the size of their cells, are ordered by more than their value."""
    maps = some_maps(10, *cells)
    maps[1] = (2 * maps[1]).round()  # ties
    maps[2] = 1.0
    maps[3] = 0.0
    maps[4] = -maps[4] - 0.25
    maps[5] = torch.randn(cells) * torch.randint(0, 2, cells)  # both signs, and zeros of both
    maps[6] = torch.nan_to_num(maps[6]) * 1e-44  # below the normal numbers
    maps[7] *= 2.0**127 / maps[7].max()
    maps[8] = 0.0
    maps[8, -1, -1] = 3.0  # fewer positive pixels than are wanted
    maps[9].flatten()[::3] = 7.0
    return maps


def shares_from(masks: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Shares and sizes of masks (N, P, H, W), by counting."""
    inside = [(masks & (labels == label)[:, None]).sum(dim=(2, 3)) for label in range(classes)]
    sizes = masks.sum(dim=(2, 3))
    return (torch.stack(inside, dim=2).double() / sizes[:, :, None]).float(), sizes.int()


@pytest.mark.parametrize("centres", [None, CENTRES], ids=["plain", "centres"])
@pytest.mark.parametrize(("dtype", "layout", "cells", "size"), MIXED, ids=str)
def test_supports_and_shares(cells, size, dtype, layout, centres, device) -> None:
    from leamfast_kernels.gpu.region_share import launch_region_share
    from leamfast_kernels.gpu.support import launch_support

    maps, labels = maps_of(2, cells, dtype, layout).to(device), some_labels(2, *size).to(device)
    if layout != "contiguous":
        labels = labels.mT.contiguous().mT
    masks = launch_support(maps, PERCENTS, *size, centres)
    assert_same_support(masks, maps, PERCENTS, *size, centres)
    shares, sizes = launch_region_share(maps, labels, PERCENTS, *size, centres, 19)
    wanted, wanted_sizes = shares_from(masks, labels, 19)
    mass, _ = region_share_reference(maps, labels, [100], *size, centres)
    counted = [column for column, percent in enumerate(PERCENTS) if percent != 100]
    assert torch.equal(sizes, wanted_sizes)
    assert torch.equal(shares[:, counted].nan_to_num(-1), wanted[:, counted].nan_to_num(-1))
    torch.testing.assert_close(shares[:, [3]], mass, rtol=1e-6, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("centres", [None, [0.0, 1.0, 0.0, 1.0]], ids=["plain", "centres"])
@pytest.mark.parametrize("cells", [(1, 1), (26, 25)], ids=str)
def test_nothing_is_swapped_where_nothing_is_rounded(cells, centres, device) -> None:
    from leamfast_kernels.gpu.region_share import launch_region_share
    from leamfast_kernels.gpu.support import launch_support

    maps, labels = awkward_maps(*cells).to(device), some_labels(10, *cells, classes=3).to(device)
    percents = [30, 100, 3, 99.9, 3, 0.01, 60, 45, 80]  # two launches
    masks = launch_support(maps, percents, *cells, centres)
    assert torch.equal(masks, support_reference(maps, percents, *cells, centres))
    found = launch_region_share(maps, labels, percents, *cells, centres, 3)
    wanted = region_share_reference(maps, labels, percents, *cells, centres, 3)
    assert torch.equal(found[1], wanted[1])
    torch.testing.assert_close(found[0], wanted[0], rtol=2e-7, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_map_that_is_not_finite(bad, device) -> None:
    from leamfast_kernels.gpu.occlude import launch_occlude
    from leamfast_kernels.gpu.region_share import launch_region_share
    from leamfast_kernels.gpu.support import launch_support

    maps, labels = some_maps(3, 40, 30), some_labels(3, 8, 9).to(device)
    images, fills = torch.randn(3, 1, 8, 9).to(device), torch.full((1, 1, 1, 1, 1), 9.0).to(device)
    expected = launch_support(maps.to(device), [20, 100], 8, 9, None)
    expected[1] = False
    maps[1, 39, 29] = bad  # more cells than a program looks at in one step, and none next to a pixel
    maps = maps.to(device)
    assert torch.equal(launch_support(maps, [20, 100], 8, 9, None), expected)
    shares, sizes = launch_region_share(maps, labels, [20, 100], 8, 9, None, 19)
    assert sizes[1].tolist() == [-1, -1]
    assert shares[1].isnan().all()
    assert not shares[[0, 2]].isnan().any()
    assert torch.equal(sizes[[0, 2]], expected[[0, 2]].sum(dim=(2, 3)).int())
    occluded = launch_occlude(images, launch_support(maps, [20, 100], 8, 9, None), fills)
    assert torch.equal(occluded[1], images[1].expand(2, 1, 1, 8, 9))
    assert not torch.equal(occluded[0], images[0].expand(2, 1, 1, 8, 9))


def test_a_float64_map_beyond_float32(device) -> None:
    from leamfast_kernels.gpu.support import launch_support

    maps = torch.tensor([[[1.0, 1e300]], [[1.0, 1e30]]], dtype=torch.float64, device=device)
    assert launch_support(maps, [50], 1, 2, None).tolist() == [[[[False, False]]], [[[False, True]]]]


def test_labels_outside_the_classes(device) -> None:
    from leamfast_kernels.gpu.region_share import launch_region_share

    maps, labels = some_maps(3, 4, 4).to(device) + 0.1, some_labels(3, 24, 25).to(device)
    wanted, wanted_sizes = launch_region_share(maps, labels, [10, 100], 24, 25, None, 19)
    labels[1, 23, 24] = 19
    shares, sizes = launch_region_share(maps, labels, [10, 100], 24, 25, None, 19)
    assert torch.equal(sizes, wanted_sizes)
    assert shares[1].isnan().all()
    assert torch.equal(shares[[0, 2]], wanted[[0, 2]])
    assert not wanted.isnan().any()


@pytest.mark.parametrize("classes", [1, 2, 33, 256])
def test_any_number_of_classes(classes, device) -> None:
    from leamfast_kernels.gpu.region_share import launch_region_share

    maps, labels = some_maps(2, 20, 21).to(device), some_labels(2, 20, 21, classes=classes).to(device)
    percents = [1, 2, 3, 5, 10, 20, 60, 100]
    found = launch_region_share(maps, labels, percents, 20, 21, None, classes)
    wanted = region_share_reference(maps, labels, percents, 20, 21, None, classes)
    assert torch.equal(found[1], wanted[1])
    torch.testing.assert_close(found[0], wanted[0], rtol=2e-7, atol=1e-12, equal_nan=True)


def test_mass_is_added_in_float64(device) -> None:
    from leamfast_kernels.gpu.region_share import launch_region_share

    maps = torch.full((1, 60, 60), 1e-4)
    maps[0, 0, 0] = 2.0**24
    labels = torch.zeros(1, 60, 60, dtype=torch.uint8)
    labels[0, 0, 0] = 1
    rest = (60**2 - 1) * maps[0, 1, 1].double()
    shares, _ = launch_region_share(maps.to(device), labels.to(device), [100], 60, 60, None, 2)
    assert shares[0, 0, 0].cpu() == (rest / (rest + 2.0**24)).float()


FILLS = {
    "colours": (3, 1, 2, 1, 1),
    "pictures": (2, 1, 2, 13, 17),
    "of each image": (1, 3, 2, 13, 17),
    "rows": (2, 3, 1, 1, 17),
}


@pytest.mark.parametrize(
    ("fills", "kind"),
    [("colours", 0), ("colours", 1), ("pictures", 1), ("pictures", 3), ("of each image", 2), ("rows", 3)],
)
def test_occluded_images(fills, kind, device) -> None:
    from leamfast_kernels.gpu.occlude import launch_occlude
    from leamfast_kernels.gpu.support import launch_support

    dtype, layout = KINDS[kind]
    percents = [50, 7.5, 100]
    maps = maps_of(3, (5, 3), torch.float32, layout).to(device)
    images = torch.randn(3, 2, 13, 17).to(device, dtype)
    instead = torch.randn(FILLS[fills]).to(device, dtype)
    if layout == "transposed":
        images = images.contiguous(memory_format=torch.channels_last)
        instead = instead.mT.contiguous().mT
    elif layout == "sliced":
        images = torch.randn(3, 4, 13, 19).to(device, dtype)[:, ::2, :, 1:-1]
    elif layout == "expanded":
        images = images[:1, :1].expand(3, 2, -1, -1)
    for centres in (None, CENTRES):
        masks = launch_support(maps, percents, 13, 17, centres)
        found = launch_occlude(images, masks, instead)
        beside = instead.expand(-1, 3, -1, -1, -1).transpose(0, 1)[:, None]
        assert found.is_contiguous()
        assert torch.equal(found, torch.where(masks[:, :, None, None], beside, images[:, None, None]))


def test_an_image_of_several_runs(device) -> None:
    from leamfast_kernels.gpu.occlude import launch_occlude

    images, maps = torch.randn(2, 3, 36, 35).to(device), some_maps(2, 36, 35).to(device)
    fills = torch.randn(2, 2, 3, 36, 35).to(device)
    masks = support_reference(maps, [5, 40], 36, 35)
    found = launch_occlude(images, masks, fills)
    masks = masks[:, :, None, None]
    assert torch.equal(found, torch.where(masks, fills.transpose(0, 1)[:, None], images[:, None, None]))


@pytest.mark.parametrize(
    ("row", "column", "height", "width", "expected"),
    [
        (9, 1, 8, 9, (True, False)),
        (9, 2, 8, 9, (False, False)),
        (0, 0, 8, 9, (False, False)),
        (7, 5, 1, 1, (True, False)),
        (2**28, 1, 8, 9, (False, False)),
        (2**28, 1, 9, 9, (False, True)),
        (0, 0, 2**16, 2**15, (False, True)),
    ],
)
def test_what_needs_64_bits(row, column, height, width, expected) -> None:
    from leamfast_kernels.gpu.selection import layout

    assert layout(row, column, height, width) == expected


@pytest.mark.parametrize("name", ["region_share", "occlude"])
def test_offsets_of_64_bits(name, device, monkeypatch) -> None:
    from leamfast_kernels.gpu import occlude, region_share, selection

    def run() -> Tensor:
        if name == "occlude":
            return occlude.launch_occlude(images, support_reference(maps, [10, 50], 8, 9), fills)
        return region_share.launch_region_share(maps, labels, [10, 100], 8, 9, None, 19)[0]

    images, fills = torch.randn(2, 3, 8, 9).to(device), torch.randn(2, 1, 3, 8, 9).to(device)
    maps, labels = some_maps(2, 4, 5).to(device), some_labels(2, 8, 9).to(device)
    wanted = run()
    for module in (occlude, region_share, selection):
        monkeypatch.setattr(module, "layout", lambda *_: (False, True))
    assert torch.equal(run(), wanted)


def test_an_empty_batch(device) -> None:
    from leamfast_kernels.gpu.occlude import launch_occlude
    from leamfast_kernels.gpu.region_share import launch_region_share
    from leamfast_kernels.gpu.support import launch_support

    maps, labels = torch.ones(0, 3, 4).to(device), some_labels(0, 5, 6).to(device)
    assert launch_support(maps, PERCENTS, 5, 6, None).shape == (0, 6, 5, 6)
    shares, sizes = launch_region_share(maps, labels, PERCENTS, 5, 6, None, 19)
    assert shares.shape == (0, 6, 19)
    assert sizes.shape == (0, 6)
    images, fills = torch.ones(0, 3, 5, 6).to(device), torch.ones(2, 1, 3, 1, 1).to(device)
    assert launch_occlude(images, launch_support(maps, PERCENTS, 5, 6, None), fills).shape == (
        0,
        6,
        2,
        3,
        5,
        6,
    )

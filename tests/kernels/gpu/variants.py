"""Every kernel, launched with realistic sizes, to be compiled ahead of time."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from leamfast_kernels.gpu.aggregate import launch_statistics
from leamfast_kernels.gpu.aggregate_backward import launch_aggregate_backward
from leamfast_kernels.gpu.bhattacharyya import launch_pairs, launch_support_keys, launch_unit_roots
from leamfast_kernels.gpu.occlude import launch_occlude
from leamfast_kernels.gpu.region_share import launch_region_share
from leamfast_kernels.gpu.sinkhorn import launch_sinkhorn
from leamfast_kernels.gpu.support import launch_support
from tests.kernels.gpu.ahead_of_time import Variant

PERCENTS = [1, 5, 10, 20, 50]
CENTRES = [3.0, 6.0, 3.0, 6.0]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
IMAGES = 64


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _aggregate(dtype: str, side: int, channels_last: bool, backward: bool) -> Variant:
    like = torch.channels_last if channels_last else torch.contiguous_format
    acts = empty(IMAGES, 64, side, side, dtype=DTYPES[dtype]).contiguous(memory_format=like)
    scale = empty(64)
    return Variant(
        f"aggregate{'_backward' * backward} {dtype} 64x{side}x{side}{' channels_last' * channels_last}",
        partial(launch_aggregate_backward, acts, acts, scale, scale, scale)
        if backward
        else partial(launch_statistics, acts, acts),
        fusion=True,
    )


def _support(cells: int, side: int, centres: bool = False) -> Variant:
    return Variant(
        f"support {cells}x{cells} to {side}x{side}{' centres' * centres}",
        partial(
            launch_support, empty(IMAGES, cells, cells), PERCENTS, side, side, CENTRES if centres else None
        ),
        fusion=False,
        loads=0,  # single cells
        stores=4,
    )


def _region_share(side: int, mass: bool = False, centres: bool = False, classes: int = 19) -> Variant:
    labels = empty(IMAGES, side, side, dtype=torch.uint8)
    maps = empty(IMAGES, 7, 7, dtype=torch.float16)  # whose cells are read by 2 bytes
    place = CENTRES if centres else None
    percents = [*PERCENTS, 100] if classes < 256 else [*PERCENTS, 30, 40, 100]
    return Variant(
        f"{'mass' if mass else 'region'}_share of {classes} to {side}x{side}{' centres' * centres}",
        partial(launch_region_share, maps, labels, percents, side, side, place, classes),
        fusion=False,
        loads=0 if mass else 4,  # a thread of the mass has one pixel
        kernel="mass_share_kernel" if mass else "region_share_kernel",
    )


def _occlude(side: int, dtype: str, fills: str) -> Variant:
    images = empty(IMAGES, 3, side, side, dtype=DTYPES[dtype])
    masks = empty(IMAGES, len(PERCENTS), side, side, dtype=torch.bool)
    instead = empty(2, 1, 3, 1, 1, dtype=DTYPES[dtype])
    if fills == "pictures":
        instead = empty(1, IMAGES, 3, side, side, dtype=DTYPES[dtype])
    return Variant(
        f"occlude {dtype} {side}x{side} {fills}",
        partial(launch_occlude, images, masks, instead),
        fusion=False,
        loads=4 * images.element_size(),
        stores=4 * images.element_size(),
    )


def _pairs(dtype: str, side: int, cut: bool) -> Variant:
    maps = empty(IMAGES, side, side, dtype=DTYPES[dtype])
    pairs = empty(1000, 2, dtype=torch.int64)
    lowest = empty(IMAGES, dtype=torch.int64) if cut else None
    return Variant(
        f"pairs {dtype} {side}x{side}{' cut' * cut}",
        partial(launch_pairs, maps, maps, pairs, lowest, lowest),
        fusion=True,
    )


def _roots(dtype: str, side: int, cut: bool) -> Variant:
    maps = empty(IMAGES, side, side, dtype=DTYPES[dtype])
    return Variant(
        f"roots {dtype} {side}x{side}{' cut' * cut}",
        partial(launch_unit_roots, maps, empty(IMAGES, dtype=torch.int64) if cut else None),
        fusion=True,
        stores=16,
    )


def _support_keys(side: int) -> Variant:
    maps = empty(IMAGES, side, side)
    return Variant(
        f"support_keys {side}x{side}", partial(launch_support_keys, maps, side * side // 10), fusion=False
    )


def _sinkhorn(ground: str, side: int) -> Variant:
    excess, mass = empty(IMAGES, side, side, dtype=torch.float64), empty(IMAGES, dtype=torch.float64)
    return Variant(
        f"sinkhorn {ground} {side}x{side}",
        partial(launch_sinkhorn, excess, mass, ground, 0.01, 0.0005),
        fusion=True,
        loads=4,  # a lane has one column of a tile
    )


BOTH = (False, True)
VARIANTS = [
    *(
        _aggregate(dtype, side, last, backward)
        for backward in BOTH
        for dtype in DTYPES
        for side in (56, 112)
        for last in BOTH
    ),
    _support(7, 112),
    *(_support(7, 160, centres) for centres in BOTH),
    *(_region_share(160, centres=centres) for centres in BOTH),
    _region_share(160, mass=True, centres=True),
    _region_share(160, centres=True, classes=256),
    *(_occlude(112, dtype, fills) for dtype in DTYPES for fills in ("colours", "pictures")),
    *(_pairs(dtype, 56, cut) for dtype in DTYPES for cut in BOTH),
    *(_roots(dtype, 56, cut) for dtype in DTYPES for cut in BOTH),
    *(_support_keys(side) for side in (56, 128)),
    *(_sinkhorn(ground, 28) for ground in ("euclidean", "l1")),
]

"""Small runs whose maps, masks and shares are planted."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from leamfast.faces.regions import REGIONS
from leamfast.store.arrays import NO_LABEL, THRESHOLDS, Array
from leamfast.store.index import write_index
from leamfast.store.part import Part, write_part
from leamfast_kernels import region_share

FACE = np.zeros((8, 8), np.uint8)  # a face of 24 pixels before a background of 40
FACE[2:6, 1:7] = REGIONS.index("face")
FACE[3, 2:4] = REGIONS.index("re")
FACE[3, 4:6] = REGIONS.index("le")
FACE[4, 3:5] = REGIONS.index("nose")


def planted(rows: int, **shares: float | Sequence[float]) -> np.ndarray:
    """Shares (rows, threshold, region), the same at all thresholds: one number a region, or one a row."""
    values = np.zeros((rows, len(THRESHOLDS), len(REGIONS)), np.float32)
    for region, share in shares.items():
        values[:, :, REGIONS.index(region)] = np.broadcast_to(share, rows)[:, None]
    return values


def measured(maps: np.ndarray, labels: np.ndarray, known: Sequence[str]) -> np.ndarray:
    """Shares of maps (n, h, w) in masks, as a run would store them."""
    found, _ = region_share(
        torch.from_numpy(maps.astype(np.float32)), torch.from_numpy(labels), THRESHOLDS, labels.shape[-1],
        classes=256,
    )  # fmt: skip
    shares = found.numpy()[:, :, : len(REGIONS)].copy()
    shares[(labels == NO_LABEL).all(axis=(1, 2))] = np.nan
    shares[:, :, [region not in known for region in REGIONS]] = np.nan
    return shares


def write_run(
    root: Path,
    people: Sequence[int],
    maps: np.ndarray,
    labels: np.ndarray | None = None,
    shares: np.ndarray | None = None,
    *,
    scale: np.ndarray | float = 1.0,
    duplicates: Sequence[int] | None = None,
    known: Sequence[str] | None = None,
    parser: str = "",
    settings: Mapping[str, str] | None = None,
    warnings: str = "",
) -> Path:
    """A run of model `m` with one tap `a` whose fused maps are those of the tap.

    Args:
        root: the result folder.
        people: identity of each row, from 0.
        maps: of tap `a`, (n, h, w).
        labels: region masks (size, size), the same for all rows, or (n, size, size); None for none.
        shares: (n, threshold, region); default: those that the maps have in the masks.
        scale: of the maps, (n,) or one number.
        duplicates: `duplicate_of`, if the run has it.
        known: regions that the parser can tell, if the run says so.
        parser: what made the masks, if the run says so.
        settings: further attributes of the model.
        warnings: of the tap.
    """
    rows, persons = len(people), max(people) + 1
    text = lambda values: np.array(values, dtype=object)  # noqa: E731
    size = 8 if labels is None else labels.shape[-1]
    scales = np.where(np.isnan(maps).any(axis=(1, 2)), np.nan, np.broadcast_to(scale, rows))
    arrays = {
        "image/path": Array(text([f"{i}.png" for i in range(rows)]), ("row",)),
        "image/sha1": Array(np.array([f"{row:040x}" for row in range(len(people))], dtype=object), ("row",)),
        "image/identity": Array(np.array(people), ("row",), "person"),
        "identity/name": Array(text([f"person {i}" for i in range(persons)]), ("person",)),
        f"crop/{size}/transform": Array(np.zeros((rows, 2, 3)), ("row", "affine_y", "affine_x")),
        "model/m/embedding": Array(np.ones((rows, 2), np.float32), ("row", "dimension")),
        "model/m/layer/a/map": Array(maps.astype(np.float16), ("row", "h", "w")),
        "model/m/layer/a/scale": Array(scales.astype(np.float32), ("row",)),
    }
    whose = np.array(people)
    shares_of = maps / np.nansum(maps, axis=(1, 2), keepdims=True).clip(1e-9)
    means = np.stack([shares_of[whose == person].mean(axis=0) for person in range(persons)])
    arrays["model/m/layer/a/identity_map"] = Array(means.astype(np.float32), ("person", "h", "w"))
    if duplicates is not None:
        arrays["model/m/duplicate_of"] = Array(np.array(duplicates, np.int64), ("row",), "row")
    if labels is not None:
        labels = np.broadcast_to(labels, (rows, size, size)).copy()
        found = measured(maps, labels, known or REGIONS) if shares is None else shares
        arrays[f"crop/{size}/label"] = Array(labels, ("row", "y", "x"))
        for group in ("layer/a", "fused"):
            arrays[f"model/m/{group}/region_share"] = Array(found, ("row", "threshold", "region"))
    groups = {
        "model/m": {"taps": "a", "input_size": size, "registration": "resize", **(settings or {})},
        "model/m/layer/a": {"warnings": warnings},
    }
    if known is not None:
        groups[f"crop/{size}"] = {"regions": ",".join(known), "parser": parser}
    path = root / "shards/part-00000.h5"
    path.parent.mkdir(parents=True)
    write_part(path, Part(0, arrays, groups))
    write_index(root, [path], 1, REGIONS)
    return root


@pytest.fixture
def run(tmp_path) -> Callable[..., Path]:
    """`write_run` into a folder of the test's own."""
    count = 0

    def make(*args: object, **options: object) -> Path:
        nonlocal count
        count += 1
        return write_run(tmp_path / f"run {count}", *args, **options)

    return make


def sharp(rows: int, cells: int = 8) -> np.ndarray:
    """Maps with a single cell, (rows, cells, cells)."""
    maps = np.zeros((rows, cells, cells))
    maps[:, cells // 2, cells // 2] = 1
    return maps

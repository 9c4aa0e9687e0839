"""What a part holds besides the arrays of `engine.maps`: images, identities, crops, grids and attributes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from leamfast.engine.batch_settings import BatchSettings
from leamfast.engine.crops import Crops
from leamfast.engine.plan import Shard
from leamfast.leam.program import Program
from leamfast.leam.registration import plain_centres
from leamfast.store.arrays import THRESHOLDS, Array

__all__ = ["attributes", "crop_arrays", "identity_arrays", "image_arrays", "scales", "stack"]


def image_arrays(crops: Crops, columns: Sequence[str], points: bool) -> dict[str, Array]:
    """`/image`: what is known of every usable image, with the metadata columns.

    Args:
        crops: of the shard.
        columns: names of the metadata columns.
        points: whether faces were looked for, and so their five points are known: in pixels of the photo
            with centres at whole numbers, as (x, y), in the order of `ARCFACE_TEMPLATE`.
    """
    rows = crops.rows
    arrays = {
        "image/path": _text([row.entry.name for row in rows], "row"),
        "image/sha1": _text([row.sha1 for row in rows], "row"),
        "image/position": Array(np.array([row.position for row in rows], np.int64), ("row",)),
        "image/identity": Array(np.array([row.identity for row in rows], np.int64), ("row",), "person"),
    }
    if points:
        found = stack(crops.points, (5, 2), np.float32)
        arrays["image/points"] = Array(found, ("row", "point", "coordinate"))
    for column in columns:
        arrays[f"image/{column}"] = _text([row.entry.metadata[column] for row in rows], "row")
    return arrays


def identity_arrays(shard: Shard, identities: Sequence[int], columns: Sequence[str]) -> dict[str, Array]:
    """`/identity`: every person that the shard brings, with the metadata columns that speak of persons."""
    persons = shard.identities[: shard.persons]
    counts = np.bincount(np.array(identities, np.int64), minlength=len(persons))[: len(persons)]
    arrays = {
        "identity/name": _text([person.name for person in persons], "person"),
        "identity/images": Array(counts.astype(np.int64), ("person",)),
    }
    for column in columns:
        arrays[f"identity/{column}"] = _text([p.entries[0].metadata[column] for p in persons], "person")
    return arrays


def crop_arrays(crops: Crops, size: int, labels: bool) -> dict[str, Array]:
    """`/crop/<size>`: transforms and, where the run has them, region masks."""
    transforms = stack(crops.transforms[size], (2, 3), np.float64)
    arrays = {f"crop/{size}/transform": Array(transforms, ("row", "affine_y", "affine_x"))}
    if labels:
        masks = stack(crops.labels[size], (size, size), np.uint8)
        arrays[f"crop/{size}/label"] = Array(masks, ("row", "y", "x"))
    return arrays


def scales(name: str, program: Program) -> dict[str, Array]:
    """Centres of the cells of each tap's grid, in input pixels (pixel centres at whole numbers)."""
    size = program.model.preprocessing.size
    scales = {}
    for tap in program.taps:
        centres = program.centres[tap.name] or plain_centres(tap, size)
        for axis, cells, (offset, step) in zip("hw", (tap.height, tap.width), centres, strict=True):
            values = (offset + step * np.arange(cells)).astype(np.float32)
            scales[f"model/{name}/layer/{tap.name}/{axis}"] = Array(values, (axis,))
    return scales


def attributes(program: Program, settings: BatchSettings) -> dict[str, Any]:
    """Attributes of `/model/<name>`: how its values were made."""
    preprocessing = program.model.preprocessing
    return {
        "architecture": program.model.architecture,
        "weights": program.model.weights,
        "input_size": preprocessing.size,
        "channels": preprocessing.channels,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "taps": ",".join(tap.name for tap in program.taps),
        "target": settings.target,
        "references": settings.maps.references,
        "activation": settings.activation,
        "registration": settings.registration,
        "precision": settings.precision,
        "thresholds": THRESHOLDS,
    }


def _text(values: Sequence[str], dim: str) -> Array:
    return Array(np.array(values, dtype=object), (dim,))


def stack(values: Sequence[np.ndarray], shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Arrays of one shape as one; of none, an empty one."""
    return np.stack(values).astype(dtype, copy=False) if values else np.empty((0, *shape), dtype)

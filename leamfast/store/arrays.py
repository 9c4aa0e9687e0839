"""Named arrays with named dimensions: what a part holds and how it is laid out in HDF5.

A part is a flat mapping from HDF5 path to `Array`. Each data set carries its dimension names, so that the
index over the parts can be built from the parts alone. Leading dimensions (`LEADING`) grow
from part to part; all other dimensions are the same in every part and have a scale. Arrays along a dimension
of `PRIVATE` are not joined.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

__all__ = [
    "KEPT",
    "LEADING",
    "NO_LABEL",
    "PRIVATE",
    "SCHEMA",
    "THRESHOLDS",
    "Array",
    "chunk_rows",
    "digest",
    "read_array",
    "write_array",
]

SCHEMA = "leamfast/1"
THRESHOLDS = (1, 2, 5, 10, 20, 100)
NO_LABEL = 255  # in region masks: the image came without one
LEADING = ("row", "person", "each", "each_pair")
KEPT = "kept"
"""Along it lies what a slice of a split identity keeps for the part that closes the identity."""
PRIVATE = ("failure", KEPT)
CHUNK_BYTES = 128 * 1024


@dataclass(frozen=True)
class Array:
    """Values, the names of their dimensions, and what an index has to add to them.

    Attributes:
        values: numbers, or str as an object array.
        dims: one name a dimension, the leading one first.
        counts: `row` or `person` where the values number rows or persons of this part, from 0, or one more
            than its persons: the first of the next part. `position` where they name rows of any part by their
            `image/position`, and so the images of a split identity. -1 is missing.
    """

    values: np.ndarray
    dims: tuple[str, ...]
    counts: str = ""

    @property
    def is_text(self) -> bool:
        """Whether the values are strings."""
        return self.values.dtype == object


def chunk_rows(row_bytes: int, rows: int) -> int:
    """How many rows one chunk of an array of several dimensions holds: about 128 KiB of them."""
    return min(max(1, CHUNK_BYTES // row_bytes), rows)


def write_array(file: h5py.File, path: str, array: Array) -> h5py.Dataset:
    """Write an array as a data set, in chunks of about 128 KiB along its leading dimension."""
    if array.values.ndim != len(array.dims):
        raise ValueError(f"{path}: dims {array.dims} must name {array.values.ndim} dimensions")
    values, shape = array.values, array.values.shape
    dtype = h5py.string_dtype() if array.is_text else values.dtype
    chunks = None
    if values.size and len(shape) > 1:
        chunks = (chunk_rows(values.nbytes // shape[0], shape[0]), *shape[1:])
    dataset = file.create_dataset(path, data=values, dtype=dtype, chunks=chunks)
    dataset.attrs["dims"] = ",".join(array.dims)
    if array.counts:
        dataset.attrs["counts"] = array.counts
    return dataset


def read_array(dataset: h5py.Dataset) -> Array:
    """An array as `write_array` wrote it."""
    values = dataset.asstr()[...] if h5py.check_string_dtype(dataset.dtype) else dataset[...]
    return Array(
        np.asarray(values), tuple(dataset.attrs["dims"].split(",")), str(dataset.attrs.get("counts", ""))
    )


def digest(arrays: Mapping[str, Array], attributes: Mapping[str, Mapping[str, Any]]) -> str:
    """Hex SHA-256 over names, types, shapes, values and attributes: equal to the bit means equal here."""
    total = hashlib.sha256()
    for group in sorted(attributes):
        for name, value in sorted(attributes[group].items()):
            total.update(f"{group}\0{name}\0{np.asarray(value).tolist()!r}\0".encode())
    for path in sorted(arrays):
        values = arrays[path].values
        total.update(
            f"{path}\0{arrays[path].dims}\0{arrays[path].counts}\0{values.dtype}\0{values.shape}\0".encode()
        )
        if arrays[path].is_text:
            total.update("\0".join(str(v) for v in values.ravel()).encode())
        else:
            total.update(np.ascontiguousarray(values).data)
    return total.hexdigest()

"""Arrays of an index that lie over those of other files, and the scales of their dimensions."""

from collections.abc import Sequence
from pathlib import PurePosixPath

import h5py
import numpy as np

from leamfast.store.arrays import NO_LABEL, Array, write_array
from leamfast.store.part import PartError

__all__ = ["Piece", "attach_scales", "write_virtual"]

Piece = tuple[str, str, tuple[int, ...]]
"""File, relative to the index; name of the array there; its shape."""


def write_virtual(
    index: h5py.File, name: str, dims: Sequence[str], dtype: np.dtype, pieces: Sequence[Piece]
) -> h5py.Dataset:
    """Join arrays of other files along their leading dimension; all are of one type and other sides."""
    total = sum(shape[0] for _, _, shape in pieces)
    inner = pieces[0][2][1:]
    if total == 0:
        dataset = index.create_dataset(name, shape=(0, *inner), dtype=dtype)
    else:
        layout = h5py.VirtualLayout((total, *inner), dtype=dtype)
        start = 0
        for path, array, shape in pieces:
            if shape[0]:
                layout[start : start + shape[0]] = h5py.VirtualSource(path, array, shape=shape)
                start += shape[0]
        # What a missing source reads as: never a valid value.
        fill = np.nan if dtype.kind == "f" else (-1 if dtype.kind == "i" else NO_LABEL)
        dataset = index.create_virtual_dataset(name, layout, fillvalue=fill)
    dataset.attrs["dims"] = ",".join(dims)
    return dataset


def attach_scales(index: h5py.File, name: str, dataset: h5py.Dataset, dims: Sequence[str]) -> None:
    """Attach to each dimension the nearest scale of its name, from the array's own group upwards."""
    for axis, dim in enumerate(dims):
        places = [index.get(str(group / dim)) for group in PurePosixPath(name).parents]
        scale = next((place for place in places if isinstance(place, h5py.Dataset)), None)
        if scale is None:
            group = PurePosixPath(name).parent
            scale = write_array(index, str(group / dim), Array(np.arange(dataset.shape[axis]), (dim,)))
            scale.make_scale(dim)
        if scale.shape[0] != dataset.shape[axis]:
            raise PartError(
                f"{name} has {dataset.shape[axis]} values along {dim} where {scale.shape[0]} are needed"
            )
        dataset.dims[axis].attach_scale(scale)

"""Results of occlusion for consecutive rows of the index: one HDF5 file a block, written whole or not at all.

    model/<evaluated>/occlusion/<source>/{drop,references,...}    arrays along `row`: `OcclusionArrays`
    model/<evaluated>/occlusion/<source>/{map,percent,...}        what stands along them: `OcclusionAxes`

All blocks of a pass have the same groups, the same axes and the same arrays.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from leamfast.store.arrays import SCHEMA, Array, digest, read_array, write_array
from leamfast.store.memory_file import memory_file
from leamfast.store.occlusion import COORDINATES, DIMS, OcclusionArrays, OcclusionAxes, check_arrays
from leamfast.store.part import DAMAGE, PartError, check_seal, datasets, open_part
from leamfast.store.seal import write_sealed

__all__ = [
    "BlockName",
    "OcclusionBlock",
    "Pair",
    "block_file",
    "block_files",
    "block_name",
    "coordinates",
    "missing_blocks",
    "occlusion_group",
    "read_axes",
    "read_block",
    "read_left_out",
    "write_block",
]

Pair = tuple[str, str]
"""The evaluated model, and the source model, whose maps say what is filled."""

LEFT_OUT = ("left_out/row", "left_out/reason")

TYPES = {"map": str, "percent": float, "control": str, "fill": str, "seed": int, "step": float}


@dataclass(frozen=True, eq=False)
class OcclusionBlock:
    """What occlusion did to consecutive rows, for every pair of models.

    Attributes:
        number: from 0.
        count: blocks of the pass.
        first: number of its first row in the index.
        rows: how many rows it has; none is allowed.
        run: SHA-256 of the frozen settings of the pass.
        groups: (evaluated, source) -> axes and arrays of `rows` rows.
        left_out: row number of the index -> why its image could not be occluded.

    Raises:
        ValueError: numbers, names, shapes or values that do not go together.
    """

    number: int
    count: int
    first: int
    rows: int
    run: str
    groups: Mapping[Pair, tuple[OcclusionAxes, OcclusionArrays]]
    left_out: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise ValueError(f"block must be one of {self.count} numbered from 0, got {self.number}")
        if self.first < 0 or self.rows < 0:
            raise ValueError(f"first and rows must not be negative, got {self.first} and {self.rows}")
        if wrong := [row for row in self.left_out if not self.first <= row < self.first + self.rows]:
            raise ValueError(f"left_out must name rows of the block, got {wrong[0]}")
        if not self.groups:
            raise ValueError("groups must name at least one evaluated and source model")
        for pair, (axes, arrays) in self.groups.items():
            for name in pair:
                if not name or "/" in name or name in (".", ".."):  # no name of one HDF5 group
                    raise ValueError(f"model names must not be empty, '.' or '..' or hold '/', got {name!r}")
            try:
                check_arrays(axes, arrays, self.rows)
            except ValueError as exc:
                raise ValueError(f"{exc} (evaluated {pair[0]}, source {pair[1]})") from exc


@dataclass(frozen=True)
class BlockName:
    """What a block says of itself, without its values.

    Attributes:
        number, count, first, rows, run: as of `OcclusionBlock`.
        digest: of its values and attributes.
        layout: hash of its groups, axes and arrays, which all blocks of a pass share.
        groups: (evaluated, source), sorted.
    """

    number: int
    count: int
    first: int
    rows: int
    run: str
    digest: str
    layout: str
    groups: tuple[Pair, ...]


def block_file(folder: Path, number: int) -> Path:
    """Where a block lies: `occlusion-00000.h5`."""
    return folder / f"occlusion-{number:05d}.h5"


def block_files(folder: Path) -> list[Path]:
    """Files of blocks, sorted by name; none where there is no folder."""
    return sorted(folder.glob("occlusion-*.h5"))


def occlusion_group(evaluated: str, source: str) -> str:
    """The group of a pair of models, in a block as in the index."""
    return f"model/{evaluated}/occlusion/{source}"


def coordinates(axes: OcclusionAxes) -> dict[str, Array]:
    """What stands along each dimension, by its name; without curves there are no steps."""
    found: dict[str, Array] = {}
    for dim, attribute in COORDINATES.items():
        if values := [TYPES[dim](value) for value in getattr(axes, attribute)]:
            found[dim] = Array(np.array(values, dtype=object if TYPES[dim] is str else None), (dim,))
    return found


def write_block(folder: Path, block: OcclusionBlock) -> Path:
    """Build a block in memory, then write it atomically; returns its file, in a folder that exists."""
    arrays, attributes = _arrays(block), _attributes(block)
    path = block_file(folder, block.number)
    with memory_file(path.name) as file:
        for name, array in arrays.items():
            write_array(file, name, array)
        file.attrs.update(schema=SCHEMA, **attributes)
        file.attrs.update(digest=digest(arrays, {"/": attributes}), complete=True)
        file.flush()
        image = file.id.get_file_image()
    write_sealed(path, image)
    return path


def read_block(path: Path) -> OcclusionBlock:
    """A block with all its values.

    Raises:
        PartError: it is missing, damaged, renamed, never completed, or holds what cannot be.
    """
    check_seal(path)
    with open_part(path) as file:
        name = _name(path, file)
        try:
            arrays = {place: read_array(dataset) for place, dataset in datasets(file).items()}
            groups = {pair: _group(file, *pair) for pair in name.groups}
            left_out = _left_out(arrays)
            block = OcclusionBlock(name.number, name.count, name.first, name.rows, name.run, groups, left_out)
            attributes = _attributes(block)
            intact = digest(arrays, {"/": attributes}) == name.digest and attributes["layout"] == name.layout
        except DAMAGE as exc:
            raise PartError(f"{path.name} holds something that cannot be read: {exc}") from exc
    if not intact:
        raise PartError(f"{path.name} holds other values than were written: its digest differs")
    return block


def block_name(path: Path) -> BlockName:
    """What a block says of itself; its values are not read.

    Raises:
        PartError: it is no block, was renamed, or was never completed.
    """
    with open_part(path) as file:
        return _name(path, file)


def read_left_out(path: Path) -> dict[int, str]:
    """Rows of a block whose images could not be occluded, and why; its other values are not read.

    Raises:
        PartError: it is no block, or cannot be read.
    """
    with open_part(path) as file:
        try:
            return _left_out({name: read_array(file[name]) for name in LEFT_OUT})
        except DAMAGE as exc:
            raise PartError(f"{path.name} is no block of occlusion: {exc}") from exc


def missing_blocks(blocks: Sequence[BlockName]) -> list[int]:
    """Numbers of the blocks of a pass that are not there, going by those that are; none of none."""
    there = {block.number for block in blocks}
    return [number for number in range(blocks[0].count) if number not in there] if blocks else []


def read_axes(group: h5py.Group) -> OcclusionAxes:
    """The axes of the group of a pair of models, in a block or in the index."""
    found = {}
    for dim, attribute in COORDINATES.items():
        values = read_array(group[dim]).values.tolist() if dim in group else []
        found[attribute] = tuple(TYPES[dim](value) for value in values)
    return OcclusionAxes(**found)


def _name(path: Path, file: h5py.File) -> BlockName:
    try:
        name = BlockName(
            number=int(file.attrs["block"]),
            count=int(file.attrs["blocks"]),
            first=int(file.attrs["first"]),
            rows=int(file.attrs["rows"]),
            run=str(file.attrs["run"]),
            digest=str(file.attrs["digest"]),
            layout=str(file.attrs["layout"]),
            groups=tuple(_pairs(file)),
        )
    except DAMAGE as exc:
        raise PartError(f"{path.name} is no block of occlusion: {exc}") from exc
    wanted = block_file(path.parent, name.number)
    if path.name != wanted.name:
        raise PartError(f"{path.name} is a copy of {wanted.name}, or was renamed: remove it")
    if not 0 <= name.number < name.count:
        raise PartError(f"{path.name} says that it is block {name.number} of {name.count}")
    return name


def _pairs(file: h5py.File) -> Iterator[Pair]:
    for evaluated in sorted(file["model"]):
        for source in sorted(file[f"model/{evaluated}/occlusion"]):
            yield evaluated, source


def _group(file: h5py.File, evaluated: str, source: str) -> tuple[OcclusionAxes, OcclusionArrays]:
    group = file[occlusion_group(evaluated, source)]
    arrays = {name: group[name][...] for name in DIMS if name in group}
    return read_axes(group), OcclusionArrays(**arrays)


def _left_out(arrays: Mapping[str, Array]) -> dict[int, str]:
    rows, reasons = (arrays[name].values.tolist() for name in LEFT_OUT)
    return dict(zip(rows, reasons, strict=True))


def _arrays(block: OcclusionBlock) -> dict[str, Array]:
    found: dict[str, Array] = {
        name: Array(values, ("left_out",))
        for name, values in zip(
            LEFT_OUT,
            (np.array([*block.left_out], np.int64), np.array([*block.left_out.values()], object)),
            strict=True,
        )
    }
    for pair, (axes, arrays) in block.groups.items():
        group = occlusion_group(*pair)
        found |= {f"{group}/{dim}": array for dim, array in coordinates(axes).items()}
        found |= {f"{group}/{name}": Array(values, DIMS[name]) for name, values in arrays.by_name().items()}
    return found


def _attributes(block: OcclusionBlock) -> dict[str, Any]:
    """What a block says of itself, covered by its digest."""
    return {
        "block": block.number,
        "blocks": block.count,
        "first": block.first,
        "rows": block.rows,
        "run": block.run,
        "layout": _layout(block),
    }


def _layout(block: OcclusionBlock) -> str:
    """Hash of what all blocks of a pass have in common: cheap to compare, however many blocks there are."""
    content = [
        [*pair, {dim: array.values.tolist() for dim, array in coordinates(axes).items()}, [*arrays.by_name()]]
        for pair, (axes, arrays) in sorted(block.groups.items())
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()

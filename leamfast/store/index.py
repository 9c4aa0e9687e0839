"""`index.h5` and `failures.csv`: pure functions of the parts.

Numbers are virtual data sets over the parts, strings and numbers that count rows or persons are real data.
Every dimension has a scale, so that `xarray.open_datatree(..., engine="h5netcdf")` loads every array.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from leamfast.store.arrays import LEADING, SCHEMA, THRESHOLDS, Array, read_array, write_array
from leamfast.store.atomic import write_atomically
from leamfast.store.part import FAILURE_FIELDS, PartError, datasets, open_part, read_failures

__all__ = ["IndexSummary", "write_index"]


@dataclass(frozen=True)
class IndexSummary:
    """What an index covers."""

    parts: int
    rows: int
    persons: int
    failures: int
    complete: bool


@dataclass(frozen=True)
class _Source:
    """One part, opened, and where its rows and persons begin in the index."""

    file: h5py.File
    name: str
    row: int
    person: int


def write_index(
    folder: Path,
    parts: Sequence[Path],
    shards: int,
    regions: Sequence[str],
    failed: Sequence[Sequence[str]] = (),
) -> IndexSummary:
    """Write `failures.csv`, then `index.h5`, over the parts of a run.

    Args:
        folder: the result folder.
        parts: the finished parts in shard order, inside `folder`.
        shards: how many the plan has; fewer parts make an index that says it is incomplete.
        regions: names of the face regions.
        failed: further rows of `failures.csv`, for images of shards that could not be computed.
    """
    with ExitStack() as stack:
        sources: list[_Source] = []
        rows = persons = 0
        for path in parts:
            file = stack.enter_context(open_part(path))
            sources.append(_Source(file, path.relative_to(folder).as_posix(), rows, persons))
            rows, persons = rows + int(file.attrs["rows"]), persons + int(file.attrs["persons"])
        failures = [
            [getattr(f, name) for name in FAILURE_FIELDS] for s in sources for f in read_failures(s.file)
        ]
        failures += [list(row) for row in failed]
        write_atomically(folder / "failures.csv", _csv(failures))
        complete = len(parts) == shards
        with h5py.File("index.h5", "w", driver="core", backing_store=False) as index:
            scales = {
                "row": np.arange(rows),
                "person": np.arange(persons),
                "threshold": np.array(THRESHOLDS),
                "region": np.array(regions, dtype=object),
            }
            for name, values in scales.items():
                write_array(index, name, Array(values, (name,))).make_scale(name)
            if sources:
                _join(index, sources)
                _list_parts(index, sources)
            index.attrs.update(
                schema=SCHEMA, rows=rows, persons=persons, parts=len(parts), shards=shards, complete=complete
            )
            index.flush()
            image = index.id.get_file_image()
    write_atomically(folder / "index.h5", image)
    return IndexSummary(len(parts), rows, persons, len(failures), complete)


def _join(index: h5py.File, sources: Sequence[_Source]) -> None:
    """Every array of the parts, joined along its leading dimension, with scales for all dimensions."""
    tables = [datasets(source.file) for source in sources]
    names = [name for name in tables[0] if not name.startswith("failure/")]
    for table, source in zip(tables, sources, strict=True):
        other = [name for name in table if not name.startswith("failure/")]
        if other != names:
            differing = sorted(set(other) ^ set(names))[0]
            raise PartError(f"{source.name} and {sources[0].name} differ in the array {differing}")
    # Scales of grids stand in the parts too, as arrays whose only dimension has their own name.
    own = {n for n in names if tables[0][n].attrs["dims"] == PurePosixPath(n).name}
    for name in sorted(own):
        write_array(index, name, read_array(tables[0][name])).make_scale(PurePosixPath(name).name)
    for name in names:
        if name not in own:
            _join_one(index, name, [table[name] for table in tables], sources)
    for group, attributes in _attributes(sources[0].file).items():
        index.require_group(group).attrs.update(attributes)


def _join_one(
    index: h5py.File, name: str, pieces: Sequence[h5py.Dataset], sources: Sequence[_Source]
) -> None:
    first = pieces[0]
    dims = tuple(first.attrs["dims"].split(","))
    for piece, source in zip(pieces, sources, strict=True):
        if piece.shape[1:] != first.shape[1:] or piece.dtype != first.dtype:
            raise PartError(
                f"{name} is {piece.dtype} {piece.shape} in {source.name} "
                f"but {first.dtype} {first.shape} in {sources[0].name}"
            )
    if dims[0] not in LEADING:
        raise PartError(f"{name} has leading dimension {dims[0]!r}, none of {', '.join(LEADING)}")
    counts = str(first.attrs.get("counts", ""))
    if counts or h5py.check_string_dtype(first.dtype):
        dataset = write_array(index, name, _real(pieces, sources, counts, dims))
    else:
        dataset = _virtual(index, name, pieces, sources)
        dataset.attrs["dims"] = ",".join(dims)
    _attach(index, name, dataset, dims)


def _real(
    pieces: Sequence[h5py.Dataset], sources: Sequence[_Source], counts: str, dims: tuple[str, ...]
) -> Array:
    values = [read_array(piece).values for piece in pieces]
    if counts:
        values = [
            np.where(v < 0, v, v + getattr(source, counts)) for v, source in zip(values, sources, strict=True)
        ]
    return Array(np.concatenate(values), dims)


def _virtual(
    index: h5py.File, name: str, pieces: Sequence[h5py.Dataset], sources: Sequence[_Source]
) -> h5py.Dataset:
    total = sum(piece.shape[0] for piece in pieces)
    if total == 0:
        return index.create_dataset(name, shape=(0, *pieces[0].shape[1:]), dtype=pieces[0].dtype)
    layout = h5py.VirtualLayout((total, *pieces[0].shape[1:]), dtype=pieces[0].dtype)
    start = 0
    for piece, source in zip(pieces, sources, strict=True):
        if piece.shape[0]:
            layout[start : start + piece.shape[0]] = h5py.VirtualSource(source.name, name, shape=piece.shape)
            start += piece.shape[0]
    fill = np.nan if np.issubdtype(pieces[0].dtype, np.floating) else None
    return index.create_virtual_dataset(name, layout, fillvalue=fill)


def _attach(index: h5py.File, name: str, dataset: h5py.Dataset, dims: Sequence[str]) -> None:
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


def _list_parts(index: h5py.File, sources: Sequence[_Source]) -> None:
    columns: Mapping[str, list[Any]] = {
        "path": [source.name for source in sources],
        "shard": [int(source.file.attrs["shard"]) for source in sources],
        "rows": [int(source.file.attrs["rows"]) for source in sources],
        "digest": [str(source.file.attrs["digest"]) for source in sources],
    }
    for name, values in columns.items():
        kind = object if isinstance(values[0], str) else np.int64
        array = Array(np.array(values, dtype=kind), ("part",))
        _attach(index, f"part/{name}", write_array(index, f"part/{name}", array), array.dims)


def _attributes(file: h5py.File) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Group) and len(item.attrs):
            found[name] = dict(item.attrs)

    file.visititems(visit)
    return found


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FAILURE_FIELDS)
    writer.writerows(rows)
    return text.getvalue().encode()

"""`index.h5` and `failures.csv`: pure functions of the parts, the tiles of pairs and the blocks of occlusion.

Numbers are virtual data sets over the parts, strings and numbers that count rows or persons are real data.
Every dimension has a scale, so that `xarray.open_datatree(..., engine="h5netcdf")` loads every array.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from leamfast.store.arrays import LEADING, PRIVATE, SCHEMA, THRESHOLDS, Array, read_array, write_array
from leamfast.store.atomic import write_atomically
from leamfast.store.memory_file import memory_file
from leamfast.store.occlusion_index import join_occlusion
from leamfast.store.pair_index import join_pairs, parts_sha256
from leamfast.store.part import (
    FAILURE_FIELDS,
    PartError,
    datasets,
    group_attributes,
    open_part,
    read_failures,
)
from leamfast.store.run_folder import RunFolder
from leamfast.store.seal import write_sealed
from leamfast.store.virtual import attach_scales, write_virtual

__all__ = ["IndexSummary", "build_index", "write_index"]


POSITION = "image/position"
PART = re.compile(r"@\d+,\d+,\d+,\d+$")
"""End of the name of a picture that is a part of its file: `Entry.name`."""


@dataclass(frozen=True)
class IndexSummary:
    """What an index covers.

    Attributes:
        parts, rows, persons: how many.
        left_out: rows of failures.csv by stage.
        shared: pictures that stand under more than one person.
        complete: whether all shards of the plan are there.
    """

    parts: int
    rows: int
    persons: int
    left_out: dict[str, int]
    shared: int
    complete: bool


@dataclass(frozen=True)
class _Source:
    """What the index needs of one part, which is closed again: thousands cannot be open at the same time.

    Attributes:
        path: relative to the result folder.
        row, person: where its rows and persons begin in the index.
        shard, rows, persons, digest: as the part says.
        shapes: shape and type of every array.
        layout: dimension names of every array, and what its values count.
        values: the arrays that become real data: strings, counts, and scales of grids.
        positions: of its rows in the manifest, ascending; none where the part does not say.
        groups: attributes of its groups; of the first part only, which speaks for all.
        failures: rows of failures.csv.
    """

    path: str
    row: int
    person: int
    shard: int
    rows: int
    persons: int
    digest: str
    shapes: dict[str, tuple[tuple[int, ...], np.dtype]]
    layout: dict[str, tuple[tuple[str, ...], str]]
    values: dict[str, Array]
    positions: np.ndarray
    groups: dict[str, dict[str, Any]]
    failures: list[list[str]]


def write_index(
    folder: Path,
    parts: Sequence[Path],
    shards: int,
    regions: Sequence[str],
    failed: Sequence[Sequence[str]] = (),
) -> IndexSummary:
    """Write `failures.csv`, then `index.h5`, over the parts of a run; see `build_index`."""
    summary, failures, index = build_index(folder, parts, shards, regions, failed)
    write_atomically(folder / "failures.csv", failures)
    write_sealed(folder / "index.h5", index)
    return summary


def build_index(
    folder: Path,
    parts: Sequence[Path],
    shards: int,
    regions: Sequence[str],
    failed: Sequence[Sequence[str]] = (),
) -> tuple[IndexSummary, bytes, bytes]:
    """The content of `failures.csv` and of `index.h5` over the parts of a run.

    Args:
        folder: the result folder.
        parts: the finished parts in shard order, inside `folder`.
        shards: how many the plan has; fewer parts make an index that says it is incomplete.
        regions: names of the face regions.
        failed: further rows of `failures.csv`, for images of shards that could not be computed.

    Returns:
        What it covers, the bytes of `failures.csv`, the bytes of `index.h5`.

    Raises:
        PartError: a part cannot be read, or does not go with the others.
    """
    sources: list[_Source] = []
    rows = persons = 0
    for path in parts:
        name = path.relative_to(folder).as_posix()
        sources.append(_read_source(path, name, rows, persons, sources[0] if sources else None))
        rows, persons = rows + sources[-1].rows, persons + sources[-1].persons
    failures = [row for source in sources for row in source.failures] + [list(row) for row in failed]
    shared = _shared(sources)  # before the index lies in memory beside what this takes
    complete = len(parts) == shards
    with memory_file("index.h5") as index:
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
            made_from = parts_sha256(source.digest for source in sources)
            join_pairs(index, RunFolder(folder), made_from)
            left_out = join_occlusion(index, RunFolder(folder), made_from)
            failures += _not_occluded(index, left_out)
        index.attrs.update(
            schema=SCHEMA, rows=rows, persons=persons, parts=len(parts), shards=shards, complete=complete
        )
        sources.clear()  # before the file lies in memory twice
        index.flush()
        image = index.id.get_file_image()
    counts = dict(Counter(row[FAILURE_FIELDS.index("stage")] for row in failures))
    summary = IndexSummary(len(parts), rows, persons, counts, shared, complete)
    return summary, _csv(failures), image


def _not_occluded(index: h5py.File, left_out: Mapping[int, str]) -> list[list[str]]:
    """Rows of `failures.csv` for images that could not be occluded, row number -> why."""
    if not left_out:
        return []
    paths, names = (index[name].asstr()[...] for name in ("image/path", "identity/name"))
    people = names[index["image/identity"][...]]
    return [[str(paths[row]), str(people[row]), "occlude", left_out[row]] for row in sorted(left_out)]


def _read_source(path: Path, name: str, row: int, person: int, first: _Source | None) -> _Source:
    """A part, sharing with the first one what is the same in both: there may be many parts."""
    with open_part(path) as file:
        arrays = datasets(file)
        layout = {
            n: (tuple(d.attrs["dims"].split(",")), str(d.attrs.get("counts", ""))) for n, d in arrays.items()
        }
        layout = {n: about for n, about in layout.items() if about[0][0] not in PRIVATE}
        if first is not None and layout == first.layout:
            layout = first.layout
        arrays = {n: arrays[n] for n in layout}
        real = [
            n
            for n, (dims, counts) in layout.items()
            if counts or _is_scale(n, dims) or h5py.check_string_dtype(arrays[n].dtype)
        ]
        return _Source(
            path=name,
            row=row,
            person=person,
            shard=int(file.attrs["shard"]),
            rows=int(file.attrs["rows"]),
            persons=int(file.attrs["persons"]),
            digest=str(file.attrs["digest"]),
            shapes={n: (d.shape, d.dtype) for n, d in arrays.items()},
            layout=layout,
            values={n: read_array(arrays[n]) for n in real},
            positions=arrays[POSITION][...] if POSITION in arrays else np.empty(0, np.int64),
            groups=group_attributes(file) if first is None else {},
            failures=[[getattr(f, field) for field in FAILURE_FIELDS] for f in read_failures(file)],
        )


def _shared(sources: Sequence[_Source]) -> int:
    """How many pictures stand under more than one person; two parts of one file are two pictures."""
    if not any(source.rows for source in sources):
        return 0
    names = (
        sha1 + (part.group() if (part := PART.search(name)) else "")
        for source in sources
        for sha1, name in zip(
            source.values["image/sha1"].values, source.values["image/path"].values, strict=True
        )
    )
    pictures = np.fromiter((hash(name) for name in names), np.int64)
    persons = np.concatenate([source.person + source.values["image/identity"].values for source in sources])
    order = np.lexsort((persons, pictures))
    pictures, persons = pictures[order], persons[order]
    same = pictures[1:] == pictures[:-1]
    others = same & (persons[1:] != persons[:-1])
    return len(np.unique(pictures[1:][others]))


def _is_scale(name: str, dims: Sequence[str]) -> bool:
    """Scales of grids stand in the parts too, as arrays whose only dimension has their own name."""
    return tuple(dims) == (PurePosixPath(name).name,)


def _join(index: h5py.File, sources: Sequence[_Source]) -> None:
    """Every array of the parts, joined along its leading dimension, with scales for all dimensions."""
    first = sources[0]
    for source in sources:
        if differing := set(source.shapes) ^ set(first.shapes):
            raise PartError(f"{source.path} and {first.path} differ in the array {sorted(differing)[0]}")
        for name, (shape, dtype) in source.shapes.items():
            if (shape[1:], dtype) != (first.shapes[name][0][1:], first.shapes[name][1]):
                raise PartError(
                    f"{name} is {dtype} {shape} in {source.path} "
                    f"but {first.shapes[name][1]} {first.shapes[name][0]} in {first.path}"
                )
    own = [name for name, (dims, _) in first.layout.items() if _is_scale(name, dims)]
    for name in own:
        write_array(index, name, first.values[name]).make_scale(PurePosixPath(name).name)
    positions = np.concatenate([source.positions for source in sources])
    order = np.argsort(positions, kind="stable")
    for name in first.shapes:
        if name not in own:
            _join_one(index, name, sources, positions[order], order)
    for group, attributes in first.groups.items():
        index.require_group(group).attrs.update(attributes)


def _join_one(
    index: h5py.File, name: str, sources: Sequence[_Source], positions: np.ndarray, rows: np.ndarray
) -> None:
    """One array of the parts; `positions` of all images in the manifest, ascending, and their `rows`."""
    dims, counts = sources[0].layout[name]
    if dims[0] not in LEADING:
        raise PartError(f"{name} has leading dimension {dims[0]!r}, none of {', '.join(LEADING)}")
    if name in sources[0].values:
        values = [source.values[name].values for source in sources]
        if counts == "position":
            # An image that is left out, as workers died of it, may have been another one's reference before.
            blamed = any(stage == "compute" for source in sources for _, _, stage, _ in source.failures)
            values = [_rows(name, v, positions, rows, blamed) for v in values]
        elif counts:
            starts = [getattr(source, counts) for source in sources]
            values = [np.where(v < 0, v, v + start) for v, start in zip(values, starts, strict=True)]
        dataset = write_array(index, name, Array(np.concatenate(values), dims))
    else:
        pieces = [(source.path, name, source.shapes[name][0]) for source in sources]
        dataset = write_virtual(index, name, dims, sources[0].shapes[name][1], pieces)
    attach_scales(index, name, dataset, dims)


def _rows(name: str, wanted: np.ndarray, positions: np.ndarray, rows: np.ndarray, blamed: bool) -> np.ndarray:
    """Numbers of the rows that positions in the manifest name; -1 stays, and stands for images left out."""
    places = np.searchsorted(positions, wanted)
    found = np.append(positions, -1)[places] == wanted
    if not blamed and (lost := wanted[(wanted >= 0) & ~found].tolist()):
        raise PartError(f"{name} names the image at position {lost[0]}, which no part holds")
    return np.where(found & (wanted >= 0), np.append(rows, -1)[places], -1)


def _list_parts(index: h5py.File, sources: Sequence[_Source]) -> None:
    columns: Mapping[str, list[Any]] = {
        "path": [source.path for source in sources],
        "shard": [source.shard for source in sources],
        "rows": [source.rows for source in sources],
        "digest": [source.digest for source in sources],
    }
    for name, values in columns.items():
        kind = object if isinstance(values[0], str) else np.int64
        array = Array(np.array(values, dtype=kind), ("part",))
        attach_scales(index, f"part/{name}", write_array(index, f"part/{name}", array), array.dims)


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FAILURE_FIELDS)
    writer.writerows(rows)
    return text.getvalue().encode()

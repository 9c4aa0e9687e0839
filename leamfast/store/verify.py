"""Is a result folder whole? Every problem is named, none is mended."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from leamfast.store.arrays import SCHEMA
from leamfast.store.part import Part, PartError, datasets, read_part
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import read_frozen

__all__ = ["verify"]


def verify(root: Path) -> list[str]:
    """Check a finished run: parts, their digests and values, the index and its virtual sources.

    Args:
        root: the result folder.

    Returns:
        One sentence a problem; empty where all is well.

    Raises:
        RequestError: there is no readable run.toml.
    """
    folder = RunFolder(root)
    shards = int(read_frozen(folder.settings)["shards"]["count"])
    problems = [f"{path.relative_to(root)} is left over from a killed run" for path in root.rglob(".*.tmp")]
    parts: dict[str, int] = {}  # path of each readable part, and its rows
    for shard in range(shards):
        path = folder.part(shard)
        try:
            part = read_part(path)
        except PartError as exc:
            problems.append(str(exc))
            continue
        parts[path.relative_to(root).as_posix()] = part.rows
        if part.shard != shard:
            problems.append(f"{path.name} holds shard {part.shard}")
        problems += [f"{path.name}: {problem}" for problem in _values(part)]
    for path in sorted(folder.shards.glob("part-*.h5")):
        if path not in {folder.part(shard) for shard in range(shards)}:
            problems.append(f"{path.name} belongs to no shard of this run")
    problems += [f"index.h5: {problem}" for problem in _index(folder, parts, shards)]
    if not folder.failures.is_file():
        problems.append("failures.csv is missing")
    return problems


def _values(part: Part) -> Iterator[str]:
    """What cannot be in a part: arrays of another length than its rows, or impossible values."""
    lengths = {"row": part.rows, "person": part.persons}
    for name, array in part.arrays.items():
        values, leading = array.values, array.dims[0]
        if leading in lengths and len(values) != lengths[leading]:
            yield f"{name} has {len(values)} {leading}s where there are {lengths[leading]}"
        kind = PurePosixPath(name).name
        if kind in ("embedding", "transform") and not np.isfinite(values).all():
            yield f"{name} holds values that are not finite"
        if kind in ("map", "scale") and np.isinf(values).any():
            yield f"{name} holds infinite values"
        if kind == "map":
            yield from _map(name, values, part.arrays[f"{PurePosixPath(name).parent}/scale"].values)


def _map(name: str, maps: np.ndarray, scales: np.ndarray) -> Iterator[str]:
    if len(maps) == 0:
        return
    absent = np.isnan(maps).reshape(len(maps), -1)
    if (absent.any(axis=1) != absent.all(axis=1)).any():
        yield f"{name} holds a map that is NaN in part"
    if (absent.any(axis=1) != np.isnan(scales)).any():
        yield f"{name} and its scale disagree on which maps are missing"
    found = maps[~absent.any(axis=1)]
    if found.size and (
        found.min() < 0 or not np.isin(found.reshape(len(found), -1).max(axis=1), (0, 1)).all()
    ):
        yield f"{name} holds a map whose values do not run from 0 to a maximum of 1"


def _index(folder: RunFolder, parts: dict[str, int], shards: int) -> Iterator[str]:
    if not folder.index.is_file():
        yield "is missing"
        return
    try:
        index = h5py.File(folder.index, "r")
    except OSError as exc:
        yield f"is not readable as HDF5: {exc}"
        return
    with index:
        if index.attrs.get("schema") != SCHEMA:
            yield f"has schema {index.attrs.get('schema')!r} where {SCHEMA!r} is needed"
            return
        if not index.attrs["complete"]:
            yield f"covers {index.attrs['parts']} of {shards} shards: go on with --resume"
        listed = {}
        if "part" in index:
            listed = dict(
                zip(index["part/path"].asstr()[...], index["part/digest"].asstr()[...], strict=True)
            )
        rows = sum(count for path, count in parts.items() if path in listed)
        if index.attrs["rows"] != rows:
            yield f"has {index.attrs['rows']} rows where its parts have {rows}"
        for path in parts:
            if path not in listed:
                yield f"does not cover {path}"
        for path, digest in listed.items():
            if path in parts:
                with h5py.File(folder.root / path, "r") as file:
                    if file.attrs["digest"] != digest:
                        yield f"was made from another {path}"
        for name, dataset in datasets(index).items():
            yield from _sources(folder.root, name, dataset)


def _sources(root: Path, name: str, dataset: h5py.Dataset) -> Iterator[str]:
    """A virtual data set reads as fill values, without an error, where a source is missing."""
    if not dataset.is_virtual:
        return
    for source in dataset.virtual_sources():
        path = root / source.file_name
        if not path.is_file():
            yield f"{name} needs {source.file_name}, which is missing"
            continue
        try:
            with h5py.File(path, "r") as file:
                if source.dset_name.lstrip("/") not in file:
                    yield f"{name} needs {source.dset_name} in {source.file_name}, which has none"
        except OSError:
            yield f"{name} needs {source.file_name}, which is not readable"

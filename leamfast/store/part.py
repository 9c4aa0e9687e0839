"""One HDF5 part a shard: written whole or not at all, self-describing, with a digest of its arrays."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from leamfast.store.arrays import SCHEMA, Array, digest, read_array, write_array
from leamfast.store.beside import beside
from leamfast.store.memory_file import memory_file
from leamfast.store.seal import broken, write_sealed

__all__ = [
    "DAMAGE",
    "FAILURE_FIELDS",
    "Failure",
    "Part",
    "PartError",
    "check_seal",
    "datasets",
    "group_attributes",
    "open_part",
    "part_image",
    "read_failures",
    "read_part",
    "write_part",
]

FAILURE_FIELDS = ("path", "identity", "stage", "reason")


DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)
"""What reading a damaged HDF5 file raises."""


class PartError(ValueError):
    """A part is not what it should be; the message says in which way."""


@dataclass(frozen=True)
class Failure:
    """An image that was not used, or not for everything, and why."""

    path: str
    identity: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Part:
    """The results of one shard.

    Attributes:
        shard: its number in the plan.
        run: SHA-256 of the frozen settings of the run that made it.
        arrays: HDF5 path -> array.
        groups: HDF5 group -> attributes that describe how its values were made.
        failures: images not used.
    """

    shard: int
    arrays: Mapping[str, Array]
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    run: str = ""

    @property
    def rows(self) -> int:
        """Number of usable images."""
        return len(self.arrays["image/path"].values)

    @property
    def persons(self) -> int:
        """Number of identities."""
        return len(self.arrays["identity/name"].values)


def write_part(path: Path, part: Part) -> None:
    """Build a part in memory, then write it atomically."""
    write_sealed(path, part_image(part))


def part_image(part: Part) -> bytes:
    """The bytes of a part's file, built in memory."""
    stored = {**part.arrays, **_failure_arrays(part.failures)}
    with (
        beside(digest, stored, _signed(part)) as digested,
        memory_file(f"part-{part.shard}") as file,
    ):
        for name, array in stored.items():
            write_array(file, name, array)
        for group, attributes in part.groups.items():
            file.require_group(group).attrs.update(attributes)
        file.attrs.update(
            schema=SCHEMA,
            shard=part.shard,
            run=part.run,
            rows=part.rows,
            persons=part.persons,
            digest=digested(),
            complete=True,
        )
        file.flush()
        return file.id.get_file_image()


@contextmanager
def open_part(path: Path) -> Iterator[h5py.File]:
    """A part opened for reading, its completeness flag and schema checked.

    Raises:
        PartError: it is missing, not HDF5, of another schema, or was never completed.
    """
    if not path.is_file():
        raise PartError(f"{path.name} is missing")
    try:
        file = h5py.File(path, "r")
    except OSError as exc:
        raise PartError(f"{path.name} is not readable as HDF5: {exc}") from exc
    with file:
        try:
            schema, complete = file.attrs.get("schema"), bool(file.attrs.get("complete"))
        except DAMAGE as exc:
            raise PartError(f"{path.name} has attributes that cannot be read: {exc}") from exc
        if schema != SCHEMA:
            raise PartError(f"{path.name} has schema {schema!r} where {SCHEMA!r} is needed")
        if not complete:
            raise PartError(f"{path.name} was never completed")
        yield file


def check_seal(path: Path) -> None:
    """Raise a PartError where a part's bytes are not those that were written; HDF5 could die of them."""
    try:
        damaged = path.is_file() and broken(path)
    except OSError as exc:
        raise PartError(f"{path.name} cannot be read: {exc.strerror}") from exc
    if damaged:
        raise PartError(f"{path.name} holds other values than were written: the digest of its bytes differs")


def datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """All data sets of a file by HDF5 path."""
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    file.visititems(visit)
    return found


def read_part(path: Path) -> Part:
    """A part with all its values.

    Raises:
        PartError: see `open_part`, or an array that cannot be read.
    """
    check_seal(path)
    with open_part(path) as file:
        try:
            arrays = {name: read_array(dataset) for name, dataset in datasets(file).items()}
            groups = group_attributes(file)
            shard, run, wanted = int(file.attrs["shard"]), str(file.attrs["run"]), file.attrs["digest"]
            columns = [arrays[f"failure/{name}"].values for name in FAILURE_FIELDS]
            failures = tuple(Failure(*fields) for fields in zip(*columns, strict=True))
            kept = {name: array for name, array in arrays.items() if not name.startswith("failure/")}
            part = Part(shard, kept, groups, failures, run)
            intact = digest(arrays, _signed(part)) == wanted
        except DAMAGE as exc:
            raise PartError(f"{path.name} holds something that cannot be read: {exc}") from exc
    if not intact:
        raise PartError(f"{path.name} holds other values than were written: its digest differs")
    return part


def _signed(part: Part) -> dict[str, Mapping[str, Any]]:
    """The attributes that a part's digest covers."""
    return {**part.groups, "/": {"shard": part.shard, "run": part.run}}


def read_failures(file: h5py.File) -> list[Failure]:
    """The images that a part's shard did not use."""
    columns = [file[f"failure/{name}"].asstr()[...] for name in FAILURE_FIELDS]
    return [Failure(*fields) for fields in zip(*columns, strict=True)]


def _failure_arrays(failures: tuple[Failure, ...]) -> dict[str, Array]:
    return {
        f"failure/{name}": Array(np.array([getattr(f, name) for f in failures], dtype=object), ("failure",))
        for name in FAILURE_FIELDS
    }


def group_attributes(file: h5py.File) -> dict[str, dict[str, Any]]:
    """Attributes of all groups of a file that have any."""
    found: dict[str, dict[str, Any]] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Group) and len(item.attrs):
            found[name] = dict(item.attrs)

    file.visititems(visit)
    return found

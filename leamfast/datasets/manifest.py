"""Manifests: what the user names as DATA, as one ordered list of images with their identities.

DATA is a folder of identity folders, a CSV or Parquet file with the columns `path` and `identity`, or a
folder that holds such a file as `manifest.csv` or `manifest.parquet`. The entries of an identity stand
together, in the order in which identities first appear; this order is the manifest order on which rows,
shards and seeds rest. No image is opened here.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from leamfast.datasets.decoding import IMAGE_SUFFIXES
from leamfast.datasets.entry import Entry
from leamfast.errors import RequestError

__all__ = ["Manifest", "grouped", "read_manifest"]

REQUIRED = ("path", "identity")
LABEL = "label"
COLUMN_NAME = re.compile(r"[^\W\d][\w .-]*")
# Metadata columns become arrays in the result file, beside those that it has of its own.
RESERVED_COLUMNS = frozenset({"sha1", "position", "row", "person", "region", "threshold"})
MANIFEST_FILES = ("manifest.csv", "manifest.parquet")


@dataclass(frozen=True)
class Manifest:
    """The images of a data set, grouped by identity.

    Attributes:
        root: folder that relative paths start from.
        entries: the images, in manifest order.
        columns: names of the metadata columns, in the order of the file.
        ignored: files of an image folder that were passed over, having no image suffix.
        left_out: what the data set lists and is not among the entries: reason -> number.
    """

    root: Path
    entries: tuple[Entry, ...]
    columns: tuple[str, ...] = ()
    ignored: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    @cached_property
    def identities(self) -> tuple[str, ...]:
        """Names of the persons, in manifest order."""
        return tuple(dict.fromkeys(entry.identity for entry in self.entries))

    def resolve(self, entry: Entry) -> Path:
        """Where the image of an entry lies."""
        return self.root / entry.path

    def resolve_label(self, entry: Entry) -> Path | None:
        """Where the region mask of an entry lies; None where it has none."""
        return None if entry.label is None else self.root / entry.label

    def sha256(self) -> str:
        """Hash of all entries in order, 64 hexadecimal digits; it does not depend on where the root lies."""
        digest = hashlib.sha256()
        for entry in self.entries:
            fields: list[Any] = [entry.name, entry.identity, entry.label, sorted(entry.metadata.items())]
            if entry.spans:
                fields.append(entry.spans)
            digest.update(json.dumps(fields).encode() + b"\n")
        return digest.hexdigest()


def read_manifest(data: Path | str) -> Manifest:
    """List the images of DATA.

    Args:
        data: a folder of identity folders, a CSV or Parquet manifest, or a folder that holds one of these
            as `manifest.csv` or `manifest.parquet`. Images directly in a folder form one identity, named
            after it; those anywhere below an identity folder belong to it; names that start with a dot are
            passed over. Cells of a manifest are taken without the spaces around them.

    Raises:
        RequestError: data is missing, of another kind, holds no image or breaks a rule for manifests.
    """
    path = Path(data)
    try:
        if path.is_dir():
            return _read_folder(path)
        if not path.is_file():
            raise RequestError(
                f"DATA must be a folder of images or a manifest, got {path}: there is no such file or folder"
            )
        if path.suffix.lower() == ".csv":
            return _from_rows(path, _csv_rows(path))
        if path.suffix.lower() == ".parquet":
            return _from_rows(path, _parquet_rows(path))
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise RequestError(f"DATA must be readable, got {exc.filename or path}: {reason}") from exc
    raise RequestError(
        f"DATA must be a folder of identity folders or a .csv or .parquet manifest, got the file {path}"
    )


def _read_folder(folder: Path) -> Manifest:
    """An image folder, or the manifest that lies in it."""
    manifests = [folder / name for name in MANIFEST_FILES if (folder / name).is_file()]
    if len(manifests) > 1:
        raise RequestError(f"DATA must hold one manifest, got {folder} with {' and '.join(MANIFEST_FILES)}")
    if manifests:
        return read_manifest(manifests[0])

    own_name = folder.resolve().name
    entries: list[Entry] = []
    ignored = 0
    loose = False
    for name, is_folder in _listing(folder):
        files = _files_below(folder / name, name, ()) if is_folder else iter([name])
        for file in files:
            if os.path.splitext(file)[1].lower() not in IMAGE_SUFFIXES:
                ignored += 1
                continue
            loose = loose or not is_folder
            entries.append(Entry(file, name if is_folder else own_name, None, {}))
    if not entries:
        raise RequestError(
            f"DATA must hold images ({', '.join(sorted(IMAGE_SUFFIXES))}), got the folder {folder} with "
            "none: give a folder with one folder of images per identity"
        )
    if loose and any(entry.identity == own_name and "/" in entry.path for entry in entries):
        raise RequestError(
            f"DATA must name each identity once, got {folder} with images of its own, which take the name "
            f"{own_name!r}, beside a folder of that name: rename one of the two"
        )
    return Manifest(folder, grouped(entries), ignored=ignored)


def _files_below(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Files at any depth, as POSIX paths that start with `prefix`; links to folders are followed."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise RequestError(f"DATA must be a tree of folders, got {folder}, a link to a folder above it")
    for name, is_folder in _listing(folder):
        if is_folder:
            yield from _files_below(folder / name, f"{prefix}/{name}", (*above, here))
        else:
            yield f"{prefix}/{name}"


def _listing(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder and whether they are folders, in natural order, without hidden ones."""
    with os.scandir(folder) as items:
        names = [(item.name, item.is_dir()) for item in items if not item.name.startswith(".")]
    for name, _ in names:
        # Results hold names as UTF-8; other bytes of a file name reach Python as lone surrogates.
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise RequestError(f"DATA must have names in UTF-8, got {name!r} in {folder}: rename it")
    return sorted(names, key=lambda item: _natural_key(item[0]))


def _natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts img2 before img10, the same on every machine."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if part.isdecimal() else part for part in parts], name


Rows = Iterator[tuple[str, list[str]]]
"""Where a row stands ("line 7") and its cells; the first row holds the column names."""


def _csv_rows(file: Path) -> Rows:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield f"line {reader.line_num}", cells
    except UnicodeDecodeError as exc:
        raise RequestError(f"manifest must be UTF-8, got {file}: save it in that encoding") from exc
    except csv.Error as exc:
        raise _broken(file, f"line {reader.line_num}", f"is not well-formed CSV: {exc}") from exc


def _parquet_rows(file: Path) -> Rows:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as exc:
        raise RequestError(
            f"manifest {file} needs the package pyarrow, which cannot be imported: install it with "
            "`pip install pyarrow`, or give the manifest as CSV"
        ) from exc
    try:
        table = parquet.read_table(file, partitioning=None)
    except import_module("pyarrow").ArrowException as exc:
        raise RequestError(f"manifest must be a Parquet file, got {file}: it cannot be read as one") from exc
    yield "column names", table.column_names
    columns = [_as_text(file, name, table.column(name).to_pylist()) for name in table.column_names]
    for number, cells in enumerate(zip(*columns, strict=True), start=1):
        yield f"row {number}", list(cells)


def _as_text(file: Path, name: str, cells: list[Any]) -> list[str]:
    """The cells of a column as text; a missing value is empty."""
    for number, cell in enumerate(cells, start=1):
        if isinstance(cell, (bytes, list, dict)):
            raise RequestError(
                f"manifest columns must hold text or numbers, got {file}, row {number}, column {name!r}, "
                f"with a {type(cell).__name__}"
            )
    return ["" if cell is None else str(cell) for cell in cells]


def _from_rows(file: Path, rows: Rows) -> Manifest:
    """Check a manifest's rows one by one and gather them."""
    where, first = next(rows, ("line 1", []))
    names = [name.strip() for name in first]
    columns = _metadata_columns(file, where, names)
    root = file.parent
    entries: list[Entry] = []
    seen: dict[str, str] = {}
    for where, row in rows:
        if len(row) != len(names):
            raise _broken(file, where, f"has {len(row)} cells where the header names {len(names)} columns")
        cells = {name: cell.strip() for name, cell in zip(names, row, strict=True)}
        for name in REQUIRED:
            if not cells[name]:
                raise _broken(file, where, f"has an empty {name}")
        for name, cell in cells.items():
            if "\0" in cell:
                raise _broken(file, where, f"has a NUL byte in column {name!r}")
        place = os.path.normpath(root / cells["path"])
        if place in seen:
            raise _broken(file, where, f"repeats the path {cells['path']!r} of {seen[place]}")
        seen[place] = where
        metadata = {name: cells[name] for name in columns}
        entries.append(Entry(cells["path"], cells["identity"], cells.get(LABEL) or None, metadata))
    if not entries:
        raise RequestError(f"manifest must list images, got {file} with none: add a row per image")
    return Manifest(root, grouped(entries), columns)


def _metadata_columns(file: Path, where: str, names: Sequence[str]) -> tuple[str, ...]:
    """The columns beyond path, identity and label, once all names are found to be allowed."""
    for name in REQUIRED:
        if name not in names:
            raise _broken(
                file, where, f"names no column {name!r}: the first line must be path,identity,... with commas"
            )
    for name in names:
        if names.count(name) > 1:
            raise _broken(file, where, f"names the column {name!r} twice")
        if not COLUMN_NAME.fullmatch(name):
            raise _broken(
                file,
                where,
                f"has the column name {name!r}: use letters, digits, spaces and _ . - after a first letter",
            )
        if name in RESERVED_COLUMNS:
            raise _broken(
                file, where, f"has the column name {name!r}, which results use themselves: rename it"
            )
    return tuple(name for name in names if name not in (*REQUIRED, LABEL))


def grouped(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries of each identity together, identities by first appearance, otherwise in given order."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.identity, []).append(entry)
    return tuple(entry for group in groups.values() for entry in group)


def _broken(file: Path, where: str, what: str) -> RequestError:
    return RequestError(f"manifest {file}, {where}, {what}")

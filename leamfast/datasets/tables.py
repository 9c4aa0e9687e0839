"""Manifest tables: CSV and Parquet files with a row an image.

Columns: `path` and `identity`; `label`, the region mask; any others are metadata. Three more, which
`leamfast ingest` writes, say where in the file the image lies: `inside`, its name there; `spans`, its bytes
as "offset:length offset:length"; `rect`, the part of the picture as "x1 y1 x2 y2" (right and bottom
exclusive). A file may stand in several rows as long as `inside` or `rect` tells its images apart.
"""

import os
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from leamfast.datasets.entry import Entry, Rect, Spans
from leamfast.datasets.manifest import Manifest, grouped
from leamfast.datasets.rows import Rows, broken, csv_rows, parquet_rows
from leamfast.errors import RequestError

__all__ = [
    "COLUMN_NAME",
    "LABEL",
    "MAX_COLUMNS",
    "PLACE",
    "REQUIRED",
    "RESERVED_COLUMNS",
    "check_columns",
    "find_table",
    "leaves",
    "read_table",
]

REQUIRED = ("path", "identity")
LABEL = "label"
PLACE = ("inside", "spans", "rect")
COLUMN_NAME = re.compile(r"[^\W\d][\w .-]{0,99}")
MAX_COLUMNS = 200
"""Metadata columns at most: HDF5 takes no more than a few thousand arrays that share the axis of the rows."""
# Metadata columns become arrays in the result file, beside those that it has of its own.
RESERVED_COLUMNS = frozenset(
    {"sha1", "position", "points", "point", "coordinate", "row", "person", "region", "threshold"}
)
TABLE_FILES = ("manifest.csv", "manifest.parquet")
NOTHING: dict[str, str] = {}  # the metadata of all entries that have none
SPANS = re.compile(r"[0-9]{1,18}:[0-9]{1,18}( [0-9]{1,18}:[0-9]{1,18})*")
RECT = re.compile(r"[0-9]{1,9}( [0-9]{1,9}){3}")


def find_table(path: Path) -> Path | None:
    """The manifest that a path names: the file itself, or that of a folder; None where there is none.

    Raises:
        RequestError: the folder holds two.
    """
    if not path.is_dir():
        return path if path.suffix.lower() in (".csv", ".parquet") else None
    found = [path / name for name in TABLE_FILES if (path / name).is_file()]
    if len(found) > 1:
        raise RequestError(f"DATA must hold one manifest, got {path} with {' and '.join(TABLE_FILES)}")
    return found[0] if found else None


def read_table(path: Path) -> Manifest:
    """Read a manifest; its paths start from its own folder, and no file is looked for.

    Args:
        path: a CSV or Parquet file, or a folder that holds one as `manifest.csv` or `manifest.parquet`.
            Cells are taken without the spaces around them.

    Raises:
        RequestError: there is none, or it breaks a rule for manifests.
    """
    file = find_table(path)
    if file is None:
        raise RequestError(
            f"DATA must be a .csv or .parquet file, or a folder with {' or '.join(TABLE_FILES)}, got {path}"
        )
    rows = _rows(file)
    where, header = next(rows, ("line 1", []))
    names = [name.strip() for name in header]
    columns = check_columns(file, where, names)
    entries: list[Entry] = []
    people: dict[str, str] = {}
    seen: dict[str | tuple[str, str, Rect | None], int] = {}
    for where, row in rows:
        cells = _cells(file, where, names, row)
        cells["identity"] = people.setdefault(cells["identity"], cells["identity"])  # one text for all images
        entry = _entry(file, where, cells, columns)
        first = seen.setdefault(_picture(file, entry), len(entries))
        if first != len(entries):
            place = _place(file, first)
            raise broken(file, where, f"repeats the path {entry.name!r} of {place}: list an image once")
        entries.append(entry)
    if not entries:
        raise RequestError(f"manifest must list images, got {file} with none: add a row per image")
    return Manifest(file.parent, grouped(entries), columns)


def _rows(file: Path) -> Rows:
    return csv_rows(file) if file.suffix.lower() == ".csv" else parquet_rows(file)


def _place(file: Path, number: int) -> str:
    """Where a manifest lists its entry of this number, from 0."""
    return next(islice(_rows(file), number + 1, None))[0]


def _picture(file: Path, entry: Entry) -> str | tuple[str, str, Rect | None]:
    """What no two entries may share; as a rule the path itself, so that nothing more is held in memory."""
    path = os.path.normpath(os.path.join(file.parent, entry.path))
    inside = os.path.join(os.path.normpath(file.parent), "")
    path = path.removeprefix(inside) if inside != "./" else path
    path = entry.path if path == entry.path else path
    return (path, entry.inside, entry.rect) if entry.inside or entry.rect is not None else path


def check_columns(file: Path, where: str, names: Sequence[str]) -> tuple[str, ...]:
    """The metadata columns, once all names of a manifest's columns are found to be allowed."""
    for name in REQUIRED:
        if name not in names:
            raise broken(
                file, where, f"names no column {name!r}: the first line must be path,identity,... with commas"
            )
    metadata = tuple(name for name in names if name not in (*REQUIRED, LABEL, *PLACE))
    if len(metadata) > MAX_COLUMNS:
        raise broken(
            file, where, f"names {len(metadata)} metadata columns, at most {MAX_COLUMNS} fit: leave some out"
        )
    for name in names:
        if names.count(name) > 1:
            raise broken(file, where, f"names the column {name!r} twice")
        if not COLUMN_NAME.fullmatch(name):
            raise broken(
                file,
                where,
                f"has the column name {name[:120]!r}: use letters, digits, spaces and _ . - after a first "
                "letter, at most 100",
            )
        if name in RESERVED_COLUMNS:
            raise broken(
                file, where, f"has the column name {name!r}, which results use themselves: rename it"
            )
    return metadata


def leaves(path: str) -> bool:
    """Whether a relative path climbs out of the folder that it starts from."""
    return ".." in path and not os.path.isabs(path) and os.path.normpath(path).split("/", 1)[0] == ".."


def _cells(file: Path, where: str, names: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    """A row's cells by column, checked one by one."""
    if len(row) != len(names):
        raise broken(file, where, f"has {len(row)} cells where the header names {len(names)} columns")
    cells = {name: cell.strip() for name, cell in zip(names, row, strict=True)}
    for name in REQUIRED:
        if not cells[name]:
            raise broken(file, where, f"has an empty {name}")
    for name, cell in cells.items():
        if "\0" in cell:
            raise broken(file, where, f"has a NUL byte in column {name!r}")
    for name in ("path", LABEL):
        if leaves(cells.get(name, "")):
            raise broken(
                file,
                where,
                f"has the {name} {cells[name]!r}, which leaves the manifest's folder: write it absolutely",
            )
    return cells


def _entry(file: Path, where: str, cells: dict[str, str], columns: Sequence[str]) -> Entry:
    spans, rect = cells.get("spans", ""), cells.get("rect", "")
    try:
        return Entry(
            cells["path"],
            cells["identity"],
            cells.get(LABEL) or None,
            {name: cells[name] for name in columns} if columns else NOTHING,
            cells.get("inside", ""),
            _spans(spans) if spans else (),
            _rect(rect) if rect else None,
        )
    except ValueError as exc:
        raise broken(file, where, str(exc)) from exc


def _spans(cell: str) -> Spans:
    parts = [part.split(":") for part in cell.split(" ")] if SPANS.fullmatch(cell) else []
    spans = tuple((int(offset), int(length)) for offset, length in parts)
    if not spans or not all(length for _, length in spans):
        raise ValueError(f"has the spans {cell!r}: write offset:length, several with one space between")
    return spans


def _rect(cell: str) -> Rect:
    left, top, right, bottom = map(int, cell.split(" ")) if RECT.fullmatch(cell) else (0, 0, 0, 0)
    if not (left < right and top < bottom):
        raise ValueError(f"has the rect {cell!r}: write x1 y1 x2 y2, whole pixels with x1 < x2 and y1 < y2")
    return left, top, right, bottom

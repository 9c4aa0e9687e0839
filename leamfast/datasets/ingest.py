"""A manifest as the bytes of a CSV or Parquet file, from which the same entries are read again."""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

from leamfast.datasets.entry import Entry
from leamfast.datasets.manifest import Manifest
from leamfast.datasets.rows import import_pyarrow
from leamfast.datasets.tables import LABEL, REQUIRED, check_columns, leaves
from leamfast.errors import RequestError

__all__ = ["check_table_name", "manifest_bytes"]


def check_table_name(file: Path) -> None:
    """Refuse what cannot become a manifest, before any work is done for it.

    Raises:
        RequestError: the name does not end in .csv or .parquet, or pyarrow is needed and missing.
    """
    if file.suffix.lower() not in (".csv", ".parquet"):
        raise RequestError(f"--out must end in .csv or .parquet, got {file}")
    if file.suffix.lower() == ".parquet":
        import_pyarrow(file)


def manifest_bytes(manifest: Manifest, file: Path) -> bytes:
    """What a manifest file holds.

    Paths below the file's folder are written relative to it, all others absolutely. The columns `label`,
    `inside`, `spans` and `rect` are there where an image needs them.

    Args:
        manifest: the images.
        file: where the bytes are to lie; its suffix says whether they are CSV or Parquet.

    Raises:
        RequestError: a name or a metadata column could not be read again as it is.
    """
    check_table_name(file)
    optional = {
        LABEL: any(entry.label is not None for entry in manifest.entries),
        "inside": any(entry.inside for entry in manifest.entries),
        "spans": any(entry.spans for entry in manifest.entries),
        "rect": any(entry.rect is not None for entry in manifest.entries),
    }
    places = [name for name, needed in optional.items() if needed]
    columns = [*REQUIRED, *places, *manifest.columns]
    if check_columns(file, "line 1", columns) != manifest.columns:
        raise RequestError(
            f"manifest {file} must have metadata columns of other names than its own, "
            f"got {', '.join(manifest.columns)}"
        )
    rows = _rows(manifest, file, columns)
    return _csv(columns, rows) if file.suffix.lower() == ".csv" else _parquet(file, columns, rows)


def _rows(manifest: Manifest, file: Path, columns: list[str]) -> Iterator[list[str]]:
    folder = os.path.abspath(file.parent).rstrip("/") + "/"
    root = os.path.abspath(manifest.root).rstrip("/") + "/"
    for entry in manifest.entries:
        cells = _cells(entry, root, folder)
        row = [cells[name] if name in cells else entry.metadata[name] for name in columns]
        for name, cell in zip(columns, row, strict=True):
            if cell != cell.strip() or "\0" in cell:
                raise RequestError(
                    f"manifest cells must not begin or end with a space or hold a NUL byte, got the {name} "
                    f"{cell!r} of {entry.name!r}: rename it"
                )
        yield row


def _cells(entry: Entry, root: str, folder: str) -> dict[str, str]:
    """The cells of the columns that are no metadata."""
    return {
        "path": _placed(entry.path, root, folder),
        "identity": entry.identity,
        LABEL: "" if entry.label is None else _placed(entry.label, root, folder),
        "inside": entry.inside,
        "spans": " ".join(f"{offset}:{length}" for offset, length in entry.spans),
        "rect": "" if entry.rect is None else " ".join(map(str, entry.rect)),
    }


def _placed(path: str, root: str, folder: str) -> str:
    """A path that starts from one folder, from another."""
    place = path if os.path.isabs(path) else root + path
    for spelling in (place, os.path.normpath(place)):
        below = spelling.removeprefix(folder)
        if below != spelling and not leaves(below):
            return below
    return place


def _csv(columns: list[str], rows: Iterator[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    # "\r\n" makes the writer quote cells with either letter, which would otherwise not be read again.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(file: Path, columns: list[str], rows: Iterator[list[str]]) -> bytes:
    pyarrow, parquet = import_pyarrow(file)
    cells = [list(column) for column in zip(*rows, strict=True)]
    table = pyarrow.table(
        {name: pyarrow.array(column, pyarrow.string()) for name, column in zip(columns, cells, strict=True)}
    )
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()

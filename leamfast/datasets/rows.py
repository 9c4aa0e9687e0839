"""CSV and Parquet files as rows of text."""

import csv
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from leamfast.errors import RequestError

__all__ = ["Rows", "broken", "csv_rows", "import_pyarrow", "parquet_rows"]

Rows = Iterator[tuple[str, list[str]]]
"""Where a row stands ("line 7") and its cells; the first row holds the column names."""


def broken(file: Path, where: str, what: str) -> RequestError:
    """The error that names a manifest, a row of it and what is wrong there."""
    return RequestError(f"manifest {file}, {where}, {what}")


def csv_rows(file: Path) -> Rows:
    """The rows of a CSV file that are not blank.

    Raises:
        RequestError: it is not UTF-8, or no well-formed CSV.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield f"line {reader.line_num}", cells
    except UnicodeDecodeError as exc:
        raise RequestError(f"manifest must be UTF-8, got {file}: save it in that encoding") from exc
    except csv.Error as exc:
        raise broken(file, f"line {reader.line_num}", f"is not well-formed CSV: {exc}") from exc


def import_pyarrow(file: Path) -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`; `file` is what they are needed for."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as exc:
        raise RequestError(
            f"manifest {file} needs the package pyarrow, which cannot be imported: install it with "
            "`pip install pyarrow`, or give the manifest as CSV"
        ) from exc


def parquet_rows(file: Path) -> Rows:
    """The rows of a Parquet file, numbers as text and missing values empty.

    Raises:
        RequestError: it is no Parquet file, a column holds lists, bytes or values that Python cannot hold, or
            pyarrow is missing.
    """
    pyarrow, parquet = import_pyarrow(file)
    try:
        with parquet.ParquetFile(file) as stored:
            table = stored.read()
        names = table.column_names
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:  # the system's, not pyarrow's of damaged files
            raise
        raise RequestError(f"manifest must be a Parquet file, got {file}: it cannot be read as one") from exc
    yield "column names", names
    columns = [_as_text(file, name, _cells(file, name, table.column(i))) for i, name in enumerate(names)]
    for number, cells in enumerate(zip(*columns, strict=True), start=1):
        yield f"row {number}", list(cells)


def _cells(file: Path, name: str, column: Any) -> list[Any]:
    try:
        cells: list[Any] = column.to_pylist()
    except UnicodeDecodeError as exc:
        raise RequestError(
            f"manifest must be UTF-8, got {file} with other bytes in column {name!r}: "
            "save it in that encoding"
        ) from exc
    except Exception as exc:  # dates beyond Python's, unknown time zones: each raises its own
        raise RequestError(
            f"manifest columns must hold text or numbers, got {file}, column {name!r}, with {column.type} "
            "that Python cannot hold: save it as text"
        ) from exc
    return cells


def _as_text(file: Path, name: str, cells: list[Any]) -> list[str]:
    """The cells of a column as text; a missing value is empty."""
    for number, cell in enumerate(cells, start=1):
        if isinstance(cell, (bytes, list, dict)):
            raise RequestError(
                f"manifest columns must hold text or numbers, got {file}, row {number}, column {name!r}, "
                f"with a {type(cell).__name__}"
            )
    return ["" if cell is None else str(cell) for cell in cells]

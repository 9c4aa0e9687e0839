"""Tables as CSV files: one writer, so that all of them look the same and appear whole or not at all."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from leamfast.store.atomic import write_atomically
from leamfast.store.run_folder import RunFolder

__all__ = ["write_rows", "write_table"]


def write_table(root: Path, name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write `tables/<name>.csv` of a result folder.

    Args:
        root: the result folder.
        name: of the table.
        columns: its header.
        rows: one value a column; numbers are written with six digits, NaN as `nan`, None as nothing.

    Returns:
        The file.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_text(value) for value in row] for row in rows)
    path = RunFolder(root).tables / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, text.getvalue().encode())
    return path


def write_rows(root: Path, name: str, kind: type, rows: Iterable[Any]) -> Path:
    """Write a table whose rows are instances of a dataclass; its fields are the columns."""
    columns = tuple(field.name for field in fields(kind))
    return write_table(root, name, columns, ([getattr(row, column) for column in columns] for row in rows))


def _text(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value

"""What commands print: tables for people, or one JSON object on stdout."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["INTERRUPTED", "json_text", "note", "print_json", "print_table"]


INTERRUPTED = 130  # exit status of a command that Ctrl-C stopped
WIDTH = 180  # of a table that no terminal limits


def print_json(values: Mapping[str, Any]) -> None:
    """One JSON object on stdout and nothing else there."""
    sys.stdout.write(json_text(values, indent=2) + "\n")


def json_text(values: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON, in which what is missing is null."""
    return json.dumps(
        _finite(values),
        indent=indent,
        separators=(",", ":") if indent is None else None,
        default=_plain,
        allow_nan=False,
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """A table on stdout; numbers are set flush right."""
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        numbers = all(isinstance(row[i], int | float) for row in rows)
        table.add_column(
            column, justify="right" if numbers else "left", no_wrap=numbers or i == 0, overflow="fold"
        )
    for row in rows:
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row))
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(highlight=False, markup=False, width=width)
    if title:
        console.print(f"\n{title}", soft_wrap=True)
    console.print(table)


def note(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def _finite(value: Any) -> Any:
    """JSON knows no NaN: what is missing is null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")

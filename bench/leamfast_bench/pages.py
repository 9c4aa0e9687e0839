"""Put the tables of a benchmark's results into a page: `python -m leamfast_bench.pages PAGE RESULTS`.

A page holds `<!-- table NAME -->` and `<!-- end -->`; what stands between them is written anew.
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leamfast_bench.registry import Table, registered

__all__ = ["fill", "main", "markdown"]

PLACE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown(table: Table) -> str:
    """A table in Markdown, under its title."""
    lines = [table.columns, ["---", *["--:"] * (len(table.columns) - 1)], *table.rows]
    body = "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
    return f"\n{table.title}:\n\n{body}\n\n"


def fill(page: str, found: Mapping[str, Any]) -> str:
    """The page with the tables of results.

    Args:
        page: its text.
        found: `{"metadata": ..., "results": ...}` as `leamfast bench --out` writes it.

    Raises:
        KeyError: the page asks for a table that the benchmark has not.
    """
    benchmark = registered(found["metadata"]["benchmark"])
    tables = {table.name: markdown(table) for table in benchmark.tables(found["results"])}
    return PLACE.sub(lambda place: f"{place[1]}{tables[place[2]]}{place[3]}", page)


def main() -> None:
    """Write the page anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("results", type=Path, help="file of `leamfast bench SUITE --out`")
    arguments = parser.parse_args()
    text = fill(arguments.page.read_text(), json.loads(arguments.results.read_text()))
    arguments.page.write_text(text)


if __name__ == "__main__":
    main()

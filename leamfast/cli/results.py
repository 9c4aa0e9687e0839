"""`leamfast verify` and `leamfast analyze`: what to do with a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from leamfast.analysis.diagnostics import write_diagnostics
from leamfast.analysis.regions import write_region_table
from leamfast.cli.output import note, print_json
from leamfast.store.results import open_results
from leamfast.store.verify import verify as find_problems

__all__ = ["analyze", "verify"]

Folder = Annotated[Path, typer.Argument(help="Result folder of `leamfast batch`.", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def verify(root: Folder, as_json: Json = False) -> None:
    """Check that a run is whole: parts, digests, values, index and its sources. Status 1 where it is not."""
    problems = find_problems(root)
    if as_json:
        print_json({"out": root, "whole": not problems, "problems": problems})
    else:
        for problem in problems:
            note(problem)
        note(f"{root} is whole" if not problems else f"{root} has {len(problems)} problems")
    if problems:
        raise typer.Exit(1)


def analyze(root: Folder, as_json: Json = False) -> None:
    """Turn stored results into tables: region shares with intervals, and what is known against the taps.

    Writes tables/regions.csv and tables/diagnostics.csv.
    """
    with open_results(root) as results:
        if not results.complete:
            note(f"{root} is not complete: only finished shards are counted")
    doubts, warnings = write_diagnostics(root)
    path, rows = write_region_table(root)
    if as_json:
        print_json({"regions": path, "rows": rows, "diagnostics": doubts, "warnings": warnings})
    else:
        note(f"{rows} rows in {path}")
        note(f"{warnings} reasons to doubt a tap in {doubts}")

"""`leamfast verify` and `leamfast analyze`: what to do with a finished run."""

import csv
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from leamfast.analysis.analyze import Analysis, analyze_run, write_analysis
from leamfast.analysis.diagnostics import NAMES
from leamfast.analysis.occlusion_tables import check_groups
from leamfast.analysis.strata import CROSS, metadata_columns
from leamfast.cli.occlude import columns_of
from leamfast.cli.output import note, print_json
from leamfast.engine.occlude_run import TABLES
from leamfast.errors import RequestError
from leamfast.store.results import open_results
from leamfast.store.run_folder import RunFolder
from leamfast.store.verify import verify as find_problems

__all__ = ["analyze", "verify"]

SIMILARITY = ("similarity", "paper", "verdicts")

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


def analyze(
    root: Folder,
    groups: Annotated[
        list[str] | None,
        typer.Option(
            help="Metadata column by whose values drops are compared, or several crossed: sex or sex,age. "
            "Repeat it.",
            show_default="those of groups.csv, or columns of people with 2 to 12 values",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn stored results into tables: where maps look, how they vary and agree, what is known against them.

    Writes tables/regions.csv, asymmetry.csv, off_face.csv and layers.csv, which need region masks,
    agreement.csv and diagnostics.csv, where `leamfast compare` was run similarity.csv, paper.csv and
    verdicts.csv, and where `leamfast occlude` was run occlusion.csv, transfer.csv, specificity*.csv and its
    other tables, in which BC stands beside the drops once both were run.
    """
    columns = columns_of(groups)
    check_groups(root, columns or ())
    found = analyze_run(root, _grouped(root) if columns is None else columns)
    if columns and found.occlusion is None:
        raise RequestError(
            f"--groups compares drops, and nothing of {root} was occluded: run `leamfast occlude {root}`"
        )
    if not found.complete:
        note(f"{root} is not complete: only finished shards are counted")
    tables = write_analysis(root, found)
    counts = Counter(row.name for row in found.diagnostics)
    warnings = {name: counts[name] for name in NAMES if counts[name]}
    if not found.masks:
        note(
            f"{root} has no region masks, and so no tables of regions: `leamfast batch --parser` makes masks "
            "(farl=FILE, bisenet=FILE, polygons) or takes them (masks=DIR, labels)"
        )
    if found.unknown:
        parser = f"parser {found.parser}" if found.parser else "the parser"
        note(f"{parser} cannot tell: {', '.join(found.unknown)}; the tables leave them out")
    if as_json:
        names = ("regions", "asymmetry", "off_face", "layers", "agreement", "diagnostics", *SIMILARITY)
        print_json(
            {**{name: tables.get(name) for name in (*names, *TABLES)}, "rows": len(found.regions),
             "warnings": len(found.diagnostics), "warnings_by_name": warnings,
             "parser": found.parser or None, "cannot_tell": found.unknown}
        )  # fmt: skip
        return
    for name, rows in _rows(found).items():
        if name in tables:
            note(f"{rows} rows in {tables[name]}")
    named = ", ".join(f"{name} {number}" for name, number in warnings.items())
    note(
        f"{len(found.diagnostics)} reasons to doubt a map in {tables['diagnostics']}{named and f': {named}'}"
    )


def _grouped(root: Path) -> list[tuple[str, ...]] | None:
    """Columns of groups.csv that the run still has, in their order; None where there are none."""
    path = RunFolder(root).tables / "groups.csv"
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        texts = dict.fromkeys(row["columns"] for row in csv.DictReader(file))
    with open_results(root, with_pairs=False) as results:
        known = set(metadata_columns(results))
    return [names for text in texts if set(names := tuple(text.split(CROSS))) <= known] or None


def _rows(found: Analysis) -> dict[str, int]:
    similarity, occlusion = found.similarity, found.occlusion
    return {
        "regions": len(found.regions),
        "asymmetry": len(found.asymmetry),
        "off_face": len(found.off_face),
        "layers": len(found.layers),
        "agreement": len(found.agreement),
        **({} if similarity is None else {name: similarity.count(name) for name in SIMILARITY}),
        **({} if occlusion is None else {name: occlusion.count(name) for name in TABLES}),
    }

"""What occlusion found, as tables for people: a verdict for each map, and the matrix of several models."""

from math import isfinite, nan

from leamfast.analysis.occlusion_tables import OcclusionTables
from leamfast.analysis.specificity import SpecificityRow
from leamfast.analysis.specificity_verdicts import FEWEST_PEOPLE, SpecificityVerdict
from leamfast.cli.output import note, print_table
from leamfast.engine.pair_maps import FUSED

__all__ = ["COLUMNS", "decided", "print_transfer", "print_verdicts"]

COLUMNS = {
    "own": "drop",
    "random": "random",
    "shifted": "shifted",
    "other person": "other_identity",
    "all others": "population",
}
"""Of the printed table -> what it shows of a row of specificity.csv."""

WIDTH = 6
"""Of a number: a sign, a digit, the point and three digits."""


def decided(found: OcclusionTables) -> list[tuple[SpecificityRow, SpecificityVerdict]]:
    """Each verdict behind the row of numbers that it rests on."""
    rows = {(row.model, row.map, row.threshold, row.fill): row for row in found.specificity}
    return [(rows[one.model, one.map, one.threshold, one.fill], one) for one in found.verdicts]


def print_verdicts(found: OcclusionTables) -> None:
    """A line for each model and map: what it costs, what its controls do, and what follows.

    Nothing where no model saw its own maps.
    """
    lines = decided(found)
    if not lines:
        return
    row, first = lines[0]
    several = len({one.model for one, _ in lines}) > 1
    print_table(
        [*(["model"] if several else []), "map", *map(_header, COLUMNS), "verdict"],
        [
            [
                *([row.model] if several else []),
                row.map,
                *(_number(getattr(row, name), column) for column, name in COLUMNS.items()),
                verdict.verdict,
            ]
            for row, verdict in lines
        ],
        f"How far the cosine falls when {first.threshold:g}% of the pixels are filled ({first.fill}): those "
        "of the map itself, at random, in its shape elsewhere, of another person's map, of the mean map of "
        "all others",
    )
    people = min(row.people for row, _ in lines)
    if people < FEWEST_PEOPLE:
        note(f"only {people} people, under {FEWEST_PEOPLE}: intervals are too narrow, and verdicts uncertain")


def print_transfer(found: OcclusionTables) -> None:
    """Fused maps of each model, seen by each model; nothing where one model saw its own."""
    rows = [row for row in found.transfer if row.map == FUSED]
    if len({(row.source_model, row.evaluated_model) for row in rows}) < 2:
        return
    threshold, fill = min(row.threshold for row in rows), rows[0].fill
    drops = {
        (row.source_model, row.evaluated_model): row.drop
        for row in rows
        if (row.threshold, row.fill) == (threshold, fill)
    }
    columns = {name: f"seen by {name}" for name in sorted({seen for _, seen in drops})}
    print_table(
        ["", *map(_header, columns.values())],
        [
            [
                f"maps of {source}",
                *(_number(drops.get((source, name), nan), column) for name, column in columns.items()),
            ]
            for source in sorted({source for source, _ in drops})
        ],
        f"The same for fused maps of one model, seen by another ({threshold:g}%, {fill})",
    )


def _header(column: str) -> str:
    return f"{column:>{WIDTH}}"


def _number(value: float, column: str) -> str:
    """Three digits, flush right under the name of their column."""
    width = max(WIDTH, len(column))
    return f"{value:{width}.3f}" if isfinite(value) else f"{'-':>{width}}"

"""What is known against the maps of a run, as a table."""

import csv
import io
from pathlib import Path

from leamfast.store.atomic import write_atomically
from leamfast.store.results import open_results
from leamfast.store.run_folder import RunFolder

__all__ = ["COLUMNS", "write_diagnostics"]

COLUMNS = ("model", "map", "warning")


def write_diagnostics(root: Path) -> tuple[Path, int]:
    """Write `tables/diagnostics.csv` of a result folder: one row for each reason to doubt a tap.

    Returns:
        The file, and how many rows it has.

    Raises:
        RequestError: the folder holds no run.
    """
    with open_results(root) as results:
        rows = []
        for model in results.models:
            doubted = {tap: results.warnings(model, tap) for tap in results.taps(model)}
            rows += [(model, tap, warning) for tap, warnings in doubted.items() for warning in warnings]
            if mixed := [tap for tap, warnings in doubted.items() if warnings]:
                rows.append(
                    (model, "fused", f"it is the mean over taps with warnings too: {', '.join(mixed)}")
                )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    path = RunFolder(root).tables / "diagnostics.csv"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, text.getvalue().encode())
    return path, len(rows)

"""The results of `leamfast bench maps` as tables for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leamfast_bench.maps.fidelity import PERCENTS
from leamfast_bench.registry import Table

__all__ = ["tables"]

Found = Mapping[str, Any]
PACKAGES = ("pytorch-grad-cam", "captum", "torchcam")
MIB = 2**20


def tables(results: Found) -> list[Table]:
    """The headline, the grid around it, several references, the whole run, fidelity, and what is missing."""
    several = [cell for cell in results["cells"] if cell["references"] > 1]
    return [
        _rows("maps", results["cells"][0], results),
        _grid([cell for cell in results["cells"] if cell["references"] == 1]),
        *(_rows("references", cell, results) for cell in several[:1]),
        _whole(results["whole"]),
        _fidelity(results["faithful"]),
        _fidelity_taps(results["faithful"]),
        _left_out(results),
    ]


def _rows(name: str, cell: Found, results: Found) -> Table:
    """All rows of a cell that were timed, and those that were wrong, the fastest first."""
    timed = sorted((row for row in cell["rows"] if _is_timed(row)), key=lambda row: row["median_seconds"])
    times = cell["ratios"].get(cell["best"], {})
    body = []
    for row in timed:
        low, high = row["quartiles"]
        body.append(
            (
                row["row"],
                _number(row["images_per_second"]),
                f"{_number(low)}-{_number(high)}",
                f"{times.get(row['row'], 1.0):.2f}" if times else "",
                f"{row['set_up_seconds']:.1f}",
                "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / MIB:.0f}",
                _error(row["error"]),
            )
        )
    wrong = [row for row in cell["rows"] if row["why"].startswith("wrong")]
    body += [(row["row"], "wrong", "", "", "", "", _error(row["error"])) for row in wrong]
    threads = f"{results['threads']} thread{'s' * (results['threads'] > 1)}"
    title = f"{cell['cell']}, on {results['device']}, {threads}"
    columns = ("", "images/s", "quartiles", "our best over this", "set-up s", "peak MiB", "error")
    return Table(name, title, columns, tuple(body))


def _grid(cells: Sequence[Found]) -> Table:
    """Our best row, and how many times as fast it is as the best of each other kind."""
    shares = any(row.get("share_of_peak") for cell in cells for row in cell["rows"])
    body = []
    for cell in cells:
        own = next((row for row in cell["rows"] if row["row"] == cell["best"]), None)
        if own is None:
            continue
        others = [cell["ratios"][own["row"]].get("leamfast eager", 1.0), _least(cell, "loop by hand")]
        others += [_least(cell, f"{package}, in one pass") for package in PACKAGES]
        others += [_least(cell, f"{package}, as documented") for package in PACKAGES]
        body.append(
            (
                cell["cell"],
                own["row"].removeprefix("leamfast "),
                _number(own["images_per_second"]),
                f"{cell['gflop_per_image']:.1f}",
                f"{own['gflops']:.0f}",
                *([_percent(own["share_of_peak"])] if shares else []),
                *("" if other is None else f"{other:.2f}" for other in others),
                _one(_least(cell, "bare forward and backward")),
            )
        )
    peak = ("of peak",) if shares else ()
    peers = (*(f"{package}, one pass" for package in PACKAGES), *(f"{p}, documented" for p in PACKAGES))
    columns = ("", "our best", "images/s", "GFLOP", "GFLOP/s", *peak, "eager", "by hand", *peers, "bare pass")
    title = "Our best, and how many times as fast it is as our eager, the better loop by hand, each package, "
    return Table("grid", title + "and a pass without maps", columns, tuple(body))


def _whole(whole: Found) -> Table:
    title = (
        f"{whole['cell']}: a whole run of {whole['images']} aligned pictures into HDF5 by backend "
        f"{whole['backend']}, and as many images through LEAM alone"
    )
    rows = (
        ("maps alone", _number(whole["maps_images_per_second"]), f"{whole['maps_seconds']:.1f}"),
        ("maps plus store", _number(whole["run_images_per_second"]), f"{whole['run_seconds']:.1f}"),
        ("share of the run that is maps", _percent(whole["share_of_maps"]), ""),
    )
    return Table("whole", title, ("", "images/s", "seconds"), rows)


def _fidelity(lines: Sequence[Found]) -> Table:
    """The worst tap of every backend and precision, by each measure."""
    body = []
    for line in (line for line in lines if line["taps"]):
        taps = line["taps"].values()
        worst = max(line["taps"], key=lambda tap: line["taps"][tap]["error"])
        least = [min(tap[f"overlap_{p}"] for tap in taps) for p in PERCENTS]
        body.append(
            (
                f"{line['model']}, {line['row']}",
                f"{line['taps'][worst]['error']:.1e}",
                worst,
                f"{min(tap['rank'] for tap in taps):.5f}",
                *(f"{value:.4f}" for value in least),
            )
        )
    columns = ("", "error", "of layer", "rank", *(f"overlap {p}%" for p in PERCENTS))
    return Table("fidelity", "Against float64, the worst of all layers", columns, tuple(body))


def _fidelity_taps(lines: Sequence[Found]) -> Table:
    body = [
        (
            f"{line['model']}, {line['row']}",
            tap,
            f"{found['error']:.1e}",
            f"{found['rank']:.5f}",
            *(f"{found[f'overlap_{p}']:.4f}" for p in PERCENTS),
        )
        for line in lines
        for tap, found in line["taps"].items()
    ]
    columns = ("", "layer", "error", "rank", *(f"overlap {p}%" for p in PERCENTS))
    title = "Against float64: relative L2 error, rank correlation, overlap of supports"
    return Table("fidelity_layers", title, columns, tuple(body))


def _left_out(results: Found) -> Table:
    """What could not be had or was wrong, once a reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in results["cells"]:
        for row in cell["rows"]:
            if row["why"]:
                reasons.setdefault((row["row"], row["why"]), []).append(cell["cell"])
    for line in results["faithful"]:
        if line["why"]:
            reasons.setdefault((line["row"], line["why"]), []).append(f"fidelity of {line['model']}")
    body = [(row, why, str(len(where))) for (row, why), where in reasons.items()]
    body += [(cell, why, "1") for cell, why in results["left_out"].items()]
    return Table("left_out", "Not measured, and why", ("", "reason", "times"), tuple(body))


def _is_timed(row: Found) -> bool:
    return "median_seconds" in row


def _least(cell: Found, prefix: str) -> float | None:
    """Ratio of our best to the fastest row of a kind."""
    times: Iterable[float] = [
        ratio for other, ratio in cell["ratios"][cell["best"]].items() if other.startswith(prefix)
    ]
    return min(times, default=None)


def _one(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _error(value: float | None) -> str:
    """JSON knows no infinity: what is missing is infinite."""
    return "infinite" if value is None else f"{value:.0e}"


def _number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"

"""The results of `leamfast bench similarity` as tables for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from leamfast_bench.registry import Table
from leamfast_bench.similarity.approximate import BOUND, EXACT

__all__ = ["tables"]

Found = Mapping[str, Any]
Line = tuple[object, ...]
MIB = 2**20


def tables(results: Found) -> list[Table]:
    """What was asked and found, distances, coefficients, memory, brackets, and what is missing."""
    return [
        _bars(results),
        _exact(results),
        _approximate(results),
        _coefficients(results),
        _held(results),
        _brackets(results),
        _left_out(results),
    ]


def _bars(results: Found) -> Table:
    body = []
    for bar in results["bars"]:
        asked = f"at {bar['which']} {bar['asked']:.3g}"
        body.append((bar["what"], f"{bar['found']:.3g}", asked, "yes" if bar["met"] else "no"))
    columns = ("", "found", "asked", "met")
    return Table("similarity_bars", f"What was asked and found, {_where(results)}", columns, tuple(body))


def _exact(results: Found) -> Table:
    body = []
    for case in results["exact"]:
        for row in case["rows"]:
            name = f"{case['case']}, {row['row']}"
            ratios = (f"{row['times_ours']:.2f}", f"{row['times_ours_alone']:.2f}")
            body.append((name, *_times(row, 1e3), *ratios, f"{row['error']:.0e}"))
    title = f"Exact EMD of maps of {_whose(results)}, {_where(results)}; the error is that against the loop"
    columns = ("", "ms a pair", "quartiles", "times ours", "times ours on 1 thread", "error")
    return Table("similarity_exact", title, columns, tuple(body))


def _approximate(results: Found) -> Table:
    body: list[Line] = []
    for case in results["approximate"]:
        for row in case["rows"]:
            name = f"{case['case']}, {row['row']}"
            if row["why"]:
                body.append((name, row["why"], "", "", "", ""))
                continue
            times = (*_times(row, 1e6), _digits(row["times_ours"]))
            if row["row"] == EXACT:
                body.append((name, "1, certified", "", *times))
                continue
            said = "a lower bound" if row["row"] == BOUND else "no certificate"
            value = f"{row['of_distance']:.2f}, {said}"
            errors = f"{_percent(row['median_error'])}, {_percent(row['largest_error'])}"
            body.append((name, value, errors, *times))
    title = f"EMD of the same maps, not exact, {_where(results)}"
    columns = ("", "of the distance", "median, largest error", "us a pair", "quartiles", "times ours")
    return Table("similarity_approximate", title, columns, tuple(body))


def _coefficients(results: Found) -> Table:
    case = results["coefficients"]
    pairs = case["maps"] ** 2
    body = tuple(
        (row["row"], *_times(row, 1e3 * pairs), f"{row['times_ours']:.2f}", f"{row['error']:.0e}")
        for row in case["rows"]
    )
    title = f"BC of all pairs of {case['maps']} maps of {case['side']}x{case['side']}, {_where(results)}"
    return Table("similarity_bc", title, ("", "ms", "quartiles", "times ours", "error"), body)


def _held(results: Found) -> Table:
    body = tuple(
        (
            case["maps"],
            f"{case['maps_bytes'] / MIB:.0f}",
            *(_mebibytes(case[name]) for name in ("held_bytes", "peak_bytes")),
            f"{case['matrix_bytes'] / MIB:.0f}",
        )
        for case in results["held"]
    )
    tile = results["held"][0]["tile"] if results["held"] else 0
    title = f"MiB held while `bhattacharyya_tiles` goes through all pairs, {tile} maps a side of a tile"
    columns = ("maps", "of the maps", "held beyond them", "with what glibc keeps", "the matrix would take")
    return Table("similarity_memory", title, columns, body)


def _brackets(results: Found) -> Table:
    body: list[Line] = []
    for case in results["brackets"]:
        for row in case["rows"]:
            name = f"{case['case']}, {row['row']}"
            if row["why"]:
                body.append((name, row["why"], "", "", "", ""))
                continue
            body.append((name, *_times(row, 1e6), _digits(row["times_ours"]), *_certificate(row)))
    if results["all_pairs"]:
        case = results["all_pairs"]
        each = _digits(1e6 * case["seconds"] / case["pairs"])
        body.append((f"{case['case']}, {case['seconds']:.0f} s", each, "", "", *_certificate(case)))
    title = f"EMD by Sinkhorn brackets, {_where(results)}"
    columns = ("", "us a pair", "quartiles", "times ours", "median width or error", "solved exactly")
    return Table("similarity_brackets", title, columns, tuple(body))


def _certificate(row: Found) -> Iterator[str]:
    """How wide brackets are, or how far off what has none is, and which share was solved."""
    if "share_solved" in row:
        width = row["median_width"]
        yield "none was left" if width is None else f"{_percent(width)} wide"
        yield _percent(row["share_solved"])
    elif "median_error" in row:
        yield f"{_percent(row['median_error'])} off, no certificate"
        yield ""
    else:
        yield "exact"
        yield "100%"


def _left_out(results: Found) -> Table:
    body: list[Line] = list(results["left_out"].items())
    for case in (*results["approximate"], *results["brackets"]):
        body += [(row["row"], row["why"]) for row in case["rows"] if row["why"]]
    if any(case["peak_bytes"] is None for case in results["held"]):
        body.append(("memory", "the system does not tell its peak"))
    body = list(dict.fromkeys(body))
    return Table("similarity_left_out", "Not measured, and why", ("", "reason"), tuple(body))


def _times(row: Found, unit: float) -> tuple[str, str]:
    low, high = (_digits(unit * seconds) for seconds in row["quartiles"])
    return _digits(unit * row["median_seconds"]), f"{low}-{high}"


def _mebibytes(peak: int | None) -> str:
    return "not told" if peak is None else f"{peak / MIB:.0f}"


def _digits(value: float) -> str:
    """Three digits that count, never an exponent."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 0.995 else f"{100 * share:.0f}%"


def _where(results: Found) -> str:
    threads: int = results["threads"]
    return f"{results['device']}, {threads} thread{'s' * (threads > 1)}"


def _whose(results: Found) -> str:
    layers = len(results["layers"])
    return f"{results['source']} ({results['model']}, {layers} layer{'s' * (layers > 1)})"

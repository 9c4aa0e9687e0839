"""The results of `leamfast bench kernels` as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from leamfast_bench.kernels.measure import COPY
from leamfast_bench.registry import Table

__all__ = ["tables"]

Found = Mapping[str, Any]
GIGA = 1e9
OURS = "leamfast"


def tables(results: Found) -> list[Table]:
    """Ours beside the others, every row with its spread, the ceilings of the device, and what is missing."""
    return [_kernels(results), _kernel_rows(results), _ceilings(results["cases"]), _left_out(results)]


def _kernels(results: Found) -> Table:
    """Our time, its share of what the device can do, and how many times as long the others take."""
    others = list(dict.fromkeys(row["row"] for case in results["cases"] for row in case["rows"]))
    others = [name for name in others if name != OURS]
    body = []
    for case in results["cases"]:
        own = case["rows"][0]
        if "median_seconds" not in own:
            body.append(
                (case["case"], "wrong" if "error" in own else "failed", "", "", *("" for _ in others))
            )
            continue
        ratios = (
            "" if case["ratios"].get(name) is None else f"{case['ratios'][name]:.2f}" for name in others
        )
        share = f"{100 * own['share_of_ceiling']:.0f}%"
        body.append((case["case"], _milliseconds(own["median_seconds"]), _rate(case, own), share, *ratios))
    threads = f"{results['threads']} thread{'s' * (results['threads'] > 1)}"
    title = f"leamfast_kernels on {results['device']}, {threads}: share of the device's large copy or matrix "
    title += "product, and how many times as long others take"
    return Table("kernels", title, ("", "ms", "rate", "of ceiling", *others), tuple(body))


def _kernel_rows(results: Found) -> Table:
    body = []
    for case in results["cases"]:
        for row in case["rows"]:
            if "median_seconds" not in row:
                continue
            low, high = (_milliseconds(seconds) for seconds in row["quartiles"])
            share = f"{100 * row['share_of_ceiling']:.0f}%"
            line = (case["case"], row["row"], _milliseconds(row["median_seconds"]), f"{low}-{high}")
            body.append((*line, _rate(case, row), share, f"{row['error']:.0e}"))
    columns = ("", "by", "ms", "quartiles", "rate", "of ceiling", "error")
    return Table("kernel_rows", "Every row: medians of samples taken in turn", columns, tuple(body))


def _ceilings(cases: Sequence[Found]) -> Table:
    """The least and the most that was measured beside the cases."""
    body = []
    for ceiling in dict.fromkeys(case["ceiling"] for case in cases):
        rates = [case["ceiling_rate"] / GIGA for case in cases if case["ceiling"] == ceiling]
        unit = "GB/s" if ceiling == COPY else "GFLOP/s"
        body.append((ceiling, f"{min(rates):.0f}-{max(rates):.0f} {unit}"))
    return Table(
        "kernel_ceilings", "What the device can do, as measured beside the cases", ("", "rate"), tuple(body)
    )


def _left_out(results: Found) -> Table:
    """What could not be had or was wrong."""
    body = [
        (f"{case['case']}, {row['row']}", row["why"])
        for case in results["cases"]
        for row in case["rows"]
        if row["why"]
    ]
    body += results["left_out"].items()
    if results["compiled"]:
        body.append(("torch.compile", results["compiled"]))
    return Table("kernels_left_out", "Not measured, and why", ("", "reason"), tuple(body))


def _rate(case: Found, row: Found) -> str:
    return f"{row['rate'] / GIGA:.3g} {'GB/s' if case['ceiling'] == COPY else 'GFLOP/s'}"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"

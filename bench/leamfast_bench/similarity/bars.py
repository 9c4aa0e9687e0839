"""What the project has set itself, and what was found of it."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from leamfast_bench.similarity.brackets import GROUNDS, TOLERANCE
from leamfast_bench.similarity.coefficients import BARE
from leamfast_bench.similarity.loops import LOOP
from leamfast_bench.similarity.rows import OURS

__all__ = ["MEANS", "SINGLES", "SUPPORTS", "bars"]

SINGLES, MEANS, SUPPORTS = "single maps", "identity means", "supports"
EXACT = {SINGLES: 4.0, MEANS: 6.0, SUPPORTS: 3.0}  # times as long a loop takes, at least
PRODUCT = 1.5  # times the bare product, at most
MICROSECONDS = dict(zip(GROUNDS.values(), (150.0, 40.0), strict=True))  # a pair, at most
ALL_PAIRS = 180.0  # seconds
GROWTH = 1.25  # of memory from some tiles to many, at most

Found = Mapping[str, Any]
Bar = dict[str, Any]


def bars(results: Found) -> list[Bar]:
    """Each with what was found, what was asked, `least` or `most`, and whether it is met.

    Args:
        results: of the benchmark, in its full form.
    """
    return [*_exact(results), *_product(results), *_held(results), *_brackets(results)]


def _exact(results: Found) -> Iterator[Bar]:
    for case in results["exact"]:
        (loop,) = (row for row in case["rows"] if row["row"] == LOOP)
        what = f"exact EMD, {case['case']}: how many times as long a {LOOP} takes"
        yield _bar(what, loop["times_ours"], EXACT[case["kind"]], "least")


def _product(results: Found) -> Iterator[Bar]:
    case = results["coefficients"]
    by = {row["row"]: row["median_seconds"] for row in case["rows"]}
    what = f"BC of {case['maps']} maps of {case['side']}x{case['side']}: times the {BARE}"
    yield _bar(what, by[OURS] / by[BARE], PRODUCT, "most")


def _held(results: Found) -> Iterator[Bar]:
    told = [case for case in results["held"] if case["held_bytes"]]
    for fewer, many in list(pairwise(told))[-1:]:
        what = f"tiles of {many['maps']} maps: times the memory of those of {fewer['maps']}"
        yield _bar(what, many["held_bytes"] / fewer["held_bytes"], GROWTH, "most")


def _brackets(results: Found) -> Iterator[Bar]:
    for case in results["brackets"]:
        for row in case["rows"]:
            if row["row"] not in MICROSECONDS:
                continue
            what = f"{case['case']}, {row['row']}: microseconds a pair"
            bar = _bar(what, 1e6 * row["median_seconds"], MICROSECONDS[row["row"]], "most")
            narrow = row["median_width"] is not None and row["median_width"] <= TOLERANCE
            yield bar | {"met": bar["met"] and narrow}
    if results["all_pairs"]:
        case = results["all_pairs"]
        yield _bar(f"{case['case']}, {case['pairs']} brackets: s", case["seconds"], ALL_PAIRS, "most")


def _bar(what: str, found: float, asked: float, which: str) -> Bar:
    met = found >= asked if which == "least" else found <= asked
    return {"what": what, "found": found, "asked": asked, "which": which, "met": met}

"""What the project has set itself, and what was found of it."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

__all__ = ["bars"]

RATIO = 10.0  # times as long as ours a loop takes on a CPU, at least
BUSY = 0.9  # of the time a GPU computes, at least
GROWTH = 1.25  # of memory from a run to a larger one, at most

Found = Mapping[str, Any]
Bar = dict[str, Any]


def bars(results: Found) -> list[Bar]:
    """Each with what was found, what was asked, `least` or `most`, and whether it is met.

    Args:
        results: of the benchmark, in its full form.
    """
    found = []
    if results["utilisation"] is None:
        for row in results["rows"][1:]:
            what = f"how many times as long as ours the {row['row']} takes"
            found.append(_bar(what, row["times_ours"], RATIO, "least"))
    else:
        what = "share of the time in which the device computes"
        found.append(_bar(what, results["utilisation"], BUSY, "least"))
    told = [case for case in results["memory"] if case["held_bytes"]]
    for fewer, many in list(pairwise(told))[-1:]:
        what = f"a pass over {many['images']} images: times the memory of one over {fewer['images']}"
        found.append(_bar(what, many["held_bytes"] / fewer["held_bytes"], GROWTH, "most"))
    return found


def _bar(what: str, found: float, asked: float, which: str) -> Bar:
    met = found >= asked if which == "least" else found <= asked
    return {"what": what, "found": found, "asked": asked, "which": which, "met": met}

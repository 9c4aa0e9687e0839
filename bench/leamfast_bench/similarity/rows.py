"""Rows that are timed in turn, each on work of its own, and the threads that one may use."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from leamfast_bench.maps.timing import interleaved, spread_of

__all__ = ["OURS", "Row", "WrongAnswerError", "check_equal", "threads", "timed_rows"]

OURS = "leamfast"
EQUAL = 1e-9  # relative, of distances that are exact

Row = dict[str, Any]


class WrongAnswerError(RuntimeError):
    """What is wrong is not timed."""


def check_equal(name: str, found: torch.Tensor, wanted: torch.Tensor, limit: float = EQUAL) -> float:
    """The largest |found - wanted| / wanted of distances.

    Raises:
        WrongAnswerError: it is more than the limit.
    """
    found, wanted = found.double().cpu(), wanted.double().cpu()
    error = float(((found - wanted).abs() / wanted).nan_to_num(nan=torch.inf).max())
    if not error <= limit:
        raise WrongAnswerError(f"{name}: off by {error:.2g} of the right value, where {limit:g} is allowed")
    return error


def timed_rows(
    calls: Mapping[str, Callable[[], object]],
    work: Mapping[str, int],
    rounds: int,
    device: str,
    note: Callable[[str], None],
) -> list[Row]:
    """Seconds of every call for each pair, and how many times as long as ours it takes.

    Args:
        calls: by name, ours first, warm already.
        work: pairs that each of them does.
        rounds: in which each is timed.
        device: what is waited for.
        note: told of the medians.
    """
    rows: list[Row] = []
    for name, seconds in interleaved(calls, dict.fromkeys(calls, rounds), device).items():
        low, middle, high = (value / work[name] for value in spread_of(seconds))
        rows.append({"row": name, "pairs": work[name], "median_seconds": middle, "quartiles": [low, high]})
        note(f"  {name}: {1e6 * middle:.4g} us a pair")
    for row in rows:
        row["times_ours"] = row["median_seconds"] / rows[0]["median_seconds"]
    return rows


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch, and what asks it, use so many threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)

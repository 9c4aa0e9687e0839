"""All rows of a cell: made, checked, warmed up, and then timed in turn."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from leamfast_bench.maps.case import Case, Cell
from leamfast_bench.maps.exact import Exact
from leamfast_bench.maps.gate import LIMITS, Seen, tap_errors
from leamfast_bench.maps.memory import peak_memory
from leamfast_bench.maps.row import Call, Row, reason, unseen
from leamfast_bench.maps.timing import interleaved, spread_of, timed

__all__ = ["DOCUMENTED_ROUNDS", "measure", "prepare", "ratios", "statistics_of"]

DOCUMENTED_ROUNDS = 3  # at most: these rows take ten times as long as others
OURS = "ours"
UNEXPECTED = ("wrong", "failed")

Result = dict[str, Any]


def measure(
    case: Case, cell: Cell, rows: Iterable[Row], wanted: Exact, note: Callable[[str], None]
) -> list[Result]:
    """What came of every row of a cell: its errors and times, or why it has none."""
    results, calls = [], {}
    for row in rows:
        result, call = prepare(row, case, wanted)
        results.append(result)
        if call is not None:
            calls[row.name] = partial(call, unseen)
        elif result["why"].startswith(UNEXPECTED):  # the table of what was left out has the others
            note(f"  {row.name}: {result['why']}")
    documented = min(cell.rounds, DOCUMENTED_ROUNDS)
    rounds = {
        result["row"]: documented if result["group"] == "documented" else cell.rounds
        for result in results
        if result["row"] in calls
    }
    seconds = interleaved(calls, rounds, case.device)
    for result in results:
        if result["row"] in seconds:
            result |= statistics_of(seconds[result["row"]], cell.batch, result.pop("warm_up"))
            note(f"  {result['row']}: {result['images_per_second']:.2f} images/s")
    return results


def prepare(row: Row, case: Case, wanted: Exact) -> tuple[Result, Call | None]:
    """Make a row and compare its first calls with float64; what is wrong is not timed.

    Args:
        row: the row.
        case: what it is given.
        wanted: the right answer.

    Returns:
        Its result so far, with the reason in `why` where there is no call to be timed; and the call.
    """
    result: Result = {"row": row.name, "group": row.group, "precision": row.precision, "why": ""}
    errors: list[dict[str, float]] = []
    try:
        start = time.perf_counter()
        call = row.make(case)
        warm_up = [time.perf_counter() - start]
        for number in range(1, max(row.checked) + 1):
            seen = Seen()
            warm_up.append(timed(partial(call, seen), case.device))
            if number in row.checked:
                errors.append(tap_errors(seen, wanted, case.taps[: row.taps]))
        del seen
        peak = peak_memory(partial(call, unseen), case.device)
    except Exception as exc:  # whatever a package raises, the others go on
        return result | {"why": reason(exc)}, None
    worst = {tap: max(of_call[tap] for of_call in errors) for tap in errors[0]}
    error, limit = max(worst.values()), LIMITS[row.precision]
    result |= {"errors": worst, "error": error, "limit": limit, "peak_bytes": peak}
    if error > limit:
        return result | {"why": f"wrong: off by {error:.2g} from float64, where {limit:g} is allowed"}, None
    return result | {"warm_up": warm_up}, call


def statistics_of(seconds: Sequence[float], batch: int, warm_up: Sequence[float]) -> Result:
    """Throughput and set-up time of timed calls.

    Args:
        seconds: of each call.
        batch: images in a call.
        warm_up: seconds of making the row, then of its first calls; what they took beyond as many calls of
            the median is the set-up time.
    """
    low, middle, high = spread_of(seconds)
    making, *first = warm_up
    return {
        "seconds": list(seconds),
        "median_seconds": middle,
        "images_per_second": batch / middle,
        "quartiles": [batch / high, batch / low],
        "set_up_seconds": making + sum(max(0.0, call - middle) for call in first),
    }


def ratios(results: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, dict[str, float]]]:
    """The fastest of our float32 rows, and how many times as fast as each row each of ours is."""
    timed_rows = [result for result in results if "median_seconds" in result]
    ours = [result for result in timed_rows if result["group"] == OURS]
    single = [result for result in ours if result["precision"] == "fp32"]
    best = min(single, key=lambda result: result["median_seconds"], default=None)
    return "" if best is None else best["row"], {
        own["row"]: {
            other["row"]: other["median_seconds"] / own["median_seconds"]
            for other in timed_rows
            if other is not own
        }
        for own in ours
    }

"""Exact distances on a CPU: ours beside loops over `ot.emd2`, for the same values."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leamfast_bench.similarity import loops
from leamfast_bench.similarity.pairs import Pairs
from leamfast_bench.similarity.rows import OURS, check_equal, threads, timed_rows
from leamfast_kernels import emd_pairs, support, upsample

__all__ = ["ONE", "exact_distances", "measure_exact", "on_supports"]

ONE = f"{OURS}, 1 thread"


def on_supports(maps: Tensor, side: int, percent: int) -> Tensor:
    """Maps at the size of an image, zero outside of their supports, (N, side, side)."""
    inside = support(maps, [percent], side)[:, 0]
    return upsample(maps, side) * inside


def exact_distances(pairs: Pairs) -> Tensor:
    """Ours, (K,), by all threads that torch has."""
    return emd_pairs(pairs.maps, pairs.maps, pairs.listed, method="exact").value


def measure_exact(
    pairs: Pairs, solve: loops.Solve, count: int, rounds: int, note: Callable[[str], None]
) -> tuple[dict[str, Any], Tensor]:
    """Times of ours, by all threads and by one, and of POT's, in a loop and by all threads.

    Args:
        pairs: what is compared.
        solve: POT on one of them.
        count: threads.
        rounds: in which each row is timed.
        note: told of progress.

    Returns:
        What was found, and the distances, (K,).

    Raises:
        WrongAnswerError: a row's distances are not those of the loop to a relative 1e-9.
    """
    calls: dict[str, Callable[[], Tensor]] = {OURS: partial(_ours, pairs, count)}
    if count > 1:
        calls[ONE] = partial(_ours, pairs, 1)
    calls[loops.LOOP] = partial(loops.pooled, solve, len(pairs), 1)
    if count > 1:
        calls[f"ot.emd2 in {count} threads"] = partial(loops.pooled, solve, len(pairs), count)
    note(pairs.name)
    wanted = calls[loops.LOOP]()
    errors = {name: check_equal(f"{pairs.name}, {name}", call(), wanted) for name, call in calls.items()}
    rows = timed_rows(calls, dict.fromkeys(calls, len(pairs)), rounds, "cpu", note)
    alone = next((row for row in rows if row["row"] == ONE), rows[0])
    for row in rows:
        row |= {"error": errors[row["row"]]}
        row["times_ours_alone"] = row["median_seconds"] / alone["median_seconds"]
    points = (pairs.maps > 0).flatten(1).sum(dim=1).double()
    about = {"case": pairs.name, "pairs": len(pairs), "grid": list(pairs.maps.shape[1:])}
    return about | {"points": float(points.median()), "rows": rows}, wanted


def _ours(pairs: Pairs, count: int) -> torch.Tensor:
    with threads(count):
        return exact_distances(pairs)

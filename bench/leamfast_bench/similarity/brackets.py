"""Brackets of distances on a GPU: time, width, and how many pairs had to be solved after all."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leamfast_bench.maps.timing import settle, timed
from leamfast_bench.similarity.approximate import EXACT, losses
from leamfast_bench.similarity.exact import exact_distances
from leamfast_bench.similarity.pairs import Pairs
from leamfast_bench.similarity.rows import Row, WrongAnswerError, timed_rows
from leamfast_kernels import METHODS, EmdResult, emd_pairs

__all__ = ["GROUNDS", "TOLERANCE", "measure_all_pairs", "measure_brackets"]

GROUNDS = {"euclidean": "brackets, Euclidean", "l1": "brackets, L1"}
TOLERANCE = 0.01  # width of a bracket over its upper end
ROUNDED = 1e-9  # sides of the image, by which an exact distance may lie outside


def measure_brackets(
    pairs: Pairs, checked: int, rounds: int, device: str, note: Callable[[str], None]
) -> dict[str, Any]:
    """Times of both ground distances, of exact ones on the CPU, and of geomloss on the same device.

    Args:
        pairs: what is compared, on the CPU.
        checked: how many of them the CPU solves, and geomloss is given.
        rounds: in which each row is timed.
        device: where brackets are made.
        note: told of progress.

    Raises:
        WrongAnswerError: an exact distance lies outside of its bracket.
    """
    note(f"{pairs.name}, brackets")
    here = Pairs(pairs.name, pairs.maps.to(device), pairs.listed.to(device))
    few = pairs.first(checked)
    calls: dict[str, Callable[[], object]] = {}
    rows: list[Row] = []
    for ground, name in GROUNDS.items():
        call = partial(_brackets, here, ground)
        rows.append({"row": name, "why": ""} | _checked(name, call(), few, ground))
        timed(call, device)
        calls[name] = call
    work = dict.fromkeys(calls, len(pairs))
    calls[EXACT], work[EXACT] = partial(exact_distances, few), len(few)
    rows.append({"row": EXACT, "why": ""})
    for row, loss in losses(here.first(checked), exact_distances(few)):
        rows.append(row)
        if loss is not None:
            calls[row["row"]], work[row["row"]] = loss, len(few)
    times = {row["row"]: row for row in timed_rows(calls, work, rounds, device, note)}
    for row in rows:
        row |= times.get(row["row"], {})
    return {"case": pairs.name, "pairs": len(pairs), "tolerance": TOLERANCE, "rows": rows}


def measure_all_pairs(
    means: Tensor, checked: int, device: str, note: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds of the Euclidean brackets of every pair of some maps, once.

    Args:
        means: maps, (N, h, w), on the CPU.
        checked: how many pairs, drawn at random, the CPU solves too.
        device: where brackets are made.
        note: told of progress.

    Raises:
        WrongAnswerError: an exact distance lies outside of its bracket.
    """
    listed = torch.triu_indices(len(means), len(means), 1).T.contiguous()
    listed = listed[torch.randperm(len(listed), generator=torch.Generator().manual_seed(0))]
    pairs = Pairs(f"all pairs of {len(means)} identity means", means, listed)
    here = Pairs(pairs.name, means.to(device), listed.to(device))
    _brackets(here.first(checked), "euclidean")  # whatever is compiled is compiled
    settle(device)
    start = time.perf_counter()
    found = _brackets(here, "euclidean")
    settle(device)
    seconds = time.perf_counter() - start
    note(f"{pairs.name}: {seconds:.1f} s")
    about = {"case": pairs.name, "pairs": len(pairs), "seconds": seconds, "tolerance": TOLERANCE}
    return about | _checked(pairs.name, found, pairs.first(checked), "euclidean")


def _brackets(pairs: Pairs, ground: str) -> EmdResult:
    return emd_pairs(pairs.maps, pairs.maps, pairs.listed, ground=ground, tolerance=TOLERANCE)


def _checked(name: str, found: EmdResult, few: Pairs, ground: str) -> Row:
    """How wide brackets are and how many pairs were solved; the first are found to hold the distance."""
    wanted = emd_pairs(few.maps, few.maps, few.listed, ground=ground, method="exact").value
    lower, upper, method = (getattr(found, field).cpu() for field in ("lower", "upper", "method"))
    first = slice(0, len(few))
    if not bool(((lower[first] <= wanted + ROUNDED) & (wanted <= upper[first] + ROUNDED)).all()):
        raise WrongAnswerError(f"{name}: a distance of {few.name} lies outside of its bracket")
    bracketed = method == METHODS.index("bracket")
    width = ((upper - lower) / upper)[bracketed]
    return {
        "median_width": float(width.median()) if len(width) else None,
        "share_solved": float((method == METHODS.index("exact")).double().mean()),
        "checked": len(few),
    }

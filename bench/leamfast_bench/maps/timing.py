"""Timing in turn: every row once a round, in an order that rotates, so that no row has the quiet minutes."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

__all__ = ["interleaved", "settle", "spread_of", "timed"]


def settle(device: str) -> None:
    """Wait until the device has done everything it was asked."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], object], device: str) -> float:
    """Seconds of a call, to its end on the device; what it returns is freed afterwards."""
    settle(device)
    start = time.perf_counter()
    kept = call()
    settle(device)
    seconds = time.perf_counter() - start
    del kept
    return seconds


def interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: Mapping[str, int], device: str
) -> dict[str, list[float]]:
    """Seconds of all calls.

    Args:
        calls: by name.
        rounds: in how many rounds each takes part; those with fewer take part in the first.
        device: what is waited for.
    """
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with _clean():
        for turn in range(max(rounds.values(), default=0)):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                if turn < rounds[name]:
                    gc.collect()  # nobody pays for the garbage of others
                    seconds[name].append(timed(calls[name], device))
    return seconds


@contextmanager
def _clean() -> Iterator[None]:
    """Set aside whatever lives already, so that collecting garbage is quick."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def spread_of(seconds: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile."""
    if len(seconds) < 2:
        return (seconds[0],) * 3
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return low, middle, high

"""For which share of the time a GPU has something to do."""

import time
from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

from leamfast_bench.maps.timing import settle

__all__ = ["covered", "device_utilisation"]


def device_utilisation(call: Callable[[], object], device: str) -> float:
    """Share of the time of a call in which at least one kernel or copy runs, from 0 to 1.

    Both are taken while the profiler notes kernels, which takes time as well: it is no less without.
    """
    settle(device)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        started = time.perf_counter()
        call()
        settle(device)
        seconds = time.perf_counter() - started
    ranges = [
        (event.time_range.start, event.time_range.end)
        for event in found.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    return covered(ranges) / 1e6 / seconds


def covered(ranges: Iterable[tuple[float, float]]) -> float:
    """How much of a line ranges cover together.

    >>> covered([(0, 2), (5, 6), (1, 3)])
    4.0
    """
    total, end = 0.0, float("-inf")
    for start, stop in sorted(ranges):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total

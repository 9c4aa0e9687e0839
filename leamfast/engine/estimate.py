"""How long a run takes, as arithmetic on measurements: nothing here looks at a clock or a file."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["EFFICIENCY", "Duration", "Measurement", "duration", "efficiency", "makespan", "passes", "spoken"]

EFFICIENCY = 0.9
"""What a worker is assumed to keep of its speed where several work at the same time."""


@dataclass(frozen=True)
class Measurement:
    """One timed piece of work.

    Attributes:
        images: that it took in.
        passes: of the network, forward or backward: see `passes`.
        seconds: that it took.
    """

    images: int
    passes: int
    seconds: float


@dataclass(frozen=True)
class Duration:
    """A number of seconds, and between which ones it lies if the rest is like what was measured."""

    seconds: float
    low: float
    high: float


def passes(identities: Sequence[int], references: str, max_references: int, batch_size: int) -> int:
    """Passes through a network that a shard takes, one model.

    Args:
        identities: images of each of its identities.
        references: the policy: `mean` takes a forward and a backward pass an image, the others a backward
            pass for each reference.
        max_references: references an image has at most.
        batch_size: an identity that is larger makes `mean` embed all images of its shard first.
    """
    images = sum(identities)
    if references == "mean":
        return images * (3 if max(identities, default=0) > batch_size else 2)
    backward = sum(n * max(1, min(n - 1, max_references)) for n in identities)
    return 2 * images + backward


def makespan(work: Sequence[float], workers: int) -> float:
    """How long the longest of so many workers is busy, each taking the next piece as soon as it is free."""
    if not work:
        return 0.0
    busy = [0.0] * min(workers, len(work))
    for piece in work:
        heapq.heapreplace(busy, busy[0] + piece)
    return max(busy)


def efficiency(workers: int) -> float:
    """The share of the speed of one alone that each of so many workers is assumed to keep."""
    return EFFICIENCY if workers > 1 else 1.0


def duration(measured: Sequence[Measurement], shards: Sequence[int], workers: int = 1) -> Duration:
    """How long shards take.

    A pass takes the mean time of the measured ones; the limits are those of the fastest and of the slowest
    piece measured.

    Args:
        measured: at least one.
        shards: passes of each shard, in the order in which workers take them.
        workers: how many work at the same time, of whom each keeps `EFFICIENCY` of the speed of one alone.
    """
    longest = makespan(shards, workers) / efficiency(workers)
    mean = sum(m.seconds for m in measured) / sum(m.passes for m in measured)
    each = [m.seconds / m.passes for m in measured]
    return Duration(mean * longest, min(each) * longest, max(each) * longest)


def spoken(seconds: float) -> str:
    """A time with two units at most: `40 s`, `12 min`, `3 h 20 min`, `2 d 5 h`."""
    if seconds < 1:
        return "less than a second"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"

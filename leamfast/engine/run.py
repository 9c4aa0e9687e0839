"""run(plan, function, sink): the one flow of work, whoever does it.

Each shard goes through `sink(function(shard))` in some worker; the driver only counts. Shards are finished
in any order, and none is computed twice unless its worker died or failed under it.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from leamfast.engine.plan import Shard
from leamfast.errors import RequestError
from leamfast.store.atomic import StorageFullError

__all__ = ["ATTEMPTS", "Driver", "Event", "Function", "RunReport", "Sink", "StopFlag", "run"]

ATTEMPTS = 3

Result = TypeVar("Result")
Made = TypeVar("Made", covariant=True)
Kept = TypeVar("Kept", contravariant=True)


class Function(Protocol[Made]):
    """Computes a shard; picklable, and loads what it needs at its first call in a process.

    Args:
        shard: the shard.
        ahead: the shard that is probably next here, for which work may begin in the background.
    """

    def __call__(self, shard: Shard, ahead: Shard | None = None) -> Made: ...


class Sink(Protocol[Kept]):
    """Puts the result of a shard where it belongs; picklable, called in the process that computed it."""

    def __call__(self, result: Kept, /) -> None: ...


@dataclass(frozen=True)
class Event:
    """What a driver reports of a shard: finished, or failed once for a reason."""

    shard: Shard
    error: str = ""
    final: bool = True


class StopFlag:
    """Set by the first Ctrl-C: parts in flight are finished, then the run ends. A second one interrupts."""

    def __init__(self) -> None:
        self.stopped = False

    @contextmanager
    def listening(self, note: Callable[[str], None]) -> Iterator[None]:
        """Listen to SIGINT while the block runs; only possible, and only done, in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: object) -> None:
            if self.stopped:
                raise KeyboardInterrupt
            self.stopped = True
            note("stopping after the parts in flight; Ctrl-C again stops at once")

        previous = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


class Driver(Protocol):
    """Carries shards to workers; yields an event for each that ends, until all are or `stop` is set."""

    def __call__(
        self, plan: Sequence[Shard], function: Function[Result], sink: Sink[Result], stop: StopFlag
    ) -> Iterator[Event]: ...


@dataclass
class RunReport:
    """How a run went.

    Attributes:
        done: numbers of the shards that were finished.
        failed: shard number -> why it could not be computed.
        interrupted: whether Ctrl-C ended the run early.
    """

    done: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    interrupted: bool = False


def run(
    plan: Sequence[Shard],
    function: Function[Result],
    sink: Sink[Result],
    *,
    driver: Driver,
    advance: Callable[[int], None] = lambda images: None,
    note: Callable[[str], None] = lambda text: None,
) -> RunReport:
    """Take every shard of a plan through function and sink.

    Args:
        plan: the shards to compute.
        function: shard -> its results, for example a part.
        sink: keeps them.
        driver: who does it, for example `LocalDriver`.
        advance: told of the images of each finished or failed shard.
        note: told of what the user should read while the run goes on.

    Raises:
        StorageFullError: there is no room for results; finished parts are whole.
        RequestError: the function cannot work at all, for example because a file it needs is gone.
    """
    report, stop = RunReport(), StopFlag()
    with stop.listening(note):
        for event in driver(plan, function, sink, stop):
            if event.error and not event.final:
                note(f"shard {event.shard.number} failed and is tried again: {event.error}")
                continue
            if event.error:
                report.failed[event.shard.number] = event.error
                note(f"shard {event.shard.number} failed {ATTEMPTS} times and is left out: {event.error}")
            else:
                report.done.append(event.shard.number)
            advance(event.shard.images)
    report.interrupted = stop.stopped and len(report.done) + len(report.failed) < len(plan)
    return report


FATAL = (StorageFullError, RequestError)
"""Errors that no other attempt and no other shard can escape."""

"""run(plan, function, sink): the one flow of work, whoever does it.

Each piece goes through `sink(function(piece))` in some worker; the driver only counts. Pieces are finished in
any order, and none is computed twice unless its worker died or failed under it.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from leamfast.engine.plan import Piece
from leamfast.errors import RequestError
from leamfast.store.atomic import StorageFullError

__all__ = ["ATTEMPTS", "Driver", "Event", "Function", "RunReport", "Sink", "StopFlag", "run"]

ATTEMPTS = 3

Work = TypeVar("Work", bound=Piece)
Result = TypeVar("Result")
Given = TypeVar("Given", bound=Piece, contravariant=True)
Made = TypeVar("Made", covariant=True)
Kept = TypeVar("Kept", contravariant=True)


class Function(Protocol[Given, Made]):
    """Computes a piece; picklable, and loads what it needs at its first call in a process.

    Args:
        piece: the piece, for example a shard.
        ahead: the piece that is probably next here, for which work may begin in the background.
    """

    def __call__(self, piece: Given, /, ahead: Given | None = None) -> Made: ...


class Sink(Protocol[Kept]):
    """Puts the result of a piece where it belongs; picklable, called in the process that computed it."""

    def __call__(self, result: Kept, /) -> None: ...


@dataclass(frozen=True)
class Event:
    """What a driver reports of a piece: finished, or failed once for a reason."""

    piece: Piece
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
    """Carries pieces to workers; yields an event for each that ends, until all are or `stop` is set."""

    def __call__(
        self, plan: Sequence[Work], function: Function[Work, Result], sink: Sink[Result], stop: StopFlag
    ) -> Iterator[Event]: ...


@dataclass
class RunReport:
    """How a run went.

    Attributes:
        done: numbers of the pieces that were finished.
        failed: piece number -> why it could not be computed.
        interrupted: whether Ctrl-C ended the run early.
    """

    done: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    interrupted: bool = False


def run(
    plan: Sequence[Work],
    function: Function[Work, Result],
    sink: Sink[Result],
    *,
    driver: Driver,
    advance: Callable[[int], None] = lambda amount: None,
    note: Callable[[str], None] = lambda text: None,
) -> RunReport:
    """Take every piece of a plan through function and sink.

    Args:
        plan: the pieces to compute, for example shards.
        function: piece -> its results, for example a part.
        sink: keeps them.
        driver: who does it, for example `LocalDriver`.
        advance: told of the amount of each finished or failed piece.
        note: told of what the user should read while the run goes on.

    Raises:
        StorageFullError: there is no room for results; finished parts are whole.
        RequestError: the function cannot work at all, for example because a file it needs is gone.
    """
    report, stop = RunReport(), StopFlag()
    with stop.listening(note):
        for event in driver(plan, function, sink, stop):
            if event.error and not event.final:
                note(f"{event.piece.title} failed and is tried again: {event.error}")
                continue
            if event.error:
                report.failed[event.piece.number] = event.error
                note(f"{event.piece.title} failed {ATTEMPTS} times and is left out: {event.error}")
            else:
                report.done.append(event.piece.number)
            advance(event.piece.amount)
    report.interrupted = stop.stopped and len(report.done) + len(report.failed) < len(plan)
    return report


FATAL = (StorageFullError, RequestError)
"""Errors that no other attempt and no other piece can escape."""

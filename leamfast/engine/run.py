"""run(plan, function, sink): the one flow of work, whoever does it.

Each piece goes through `sink(function(piece))` in some worker; the driver only counts. Pieces are finished in
any order, and none is computed twice unless its worker died or failed under it. How often a piece is tried,
and what becomes of one that always fails, is `engine.agenda`'s.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from leamfast.engine.agenda import Event, is_trial
from leamfast.engine.plan import Piece
from leamfast.errors import RequestError
from leamfast.store.atomic import StorageError

__all__ = [
    "ATTEMPTS",
    "FATAL",
    "Driver",
    "Function",
    "Listener",
    "RunReport",
    "Sink",
    "Staged",
    "StopFlag",
    "carry_out",
    "run",
]

ATTEMPTS = 3

FATAL = (StorageError, RequestError)
"""Errors that no other attempt and no other piece can escape."""

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


@runtime_checkable
class Staged(Protocol[Given, Made]):
    """A function in two steps, of which the first needs no device; `function(piece)` does both."""

    def prepare(self, piece: Given, /) -> Any:
        """What the second step needs; picklable."""

    def compute(self, piece: Given, prepared: Any, /) -> Made:
        """The result of a piece from what was prepared."""


class Listener(Protocol):
    """Hears how a run goes on."""

    def hear(self, event: Event) -> None:
        """Something became of a piece."""

    def note(self, text: str) -> None:
        """Something that the user should read."""


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


class _Nobody:
    """A listener that does not care."""

    def hear(self, event: Event) -> None:
        pass

    def note(self, text: str) -> None:
        pass


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
        blamed: piece number -> its images that were left out because workers died of them, and why.
        interrupted: whether Ctrl-C ended the run early.
        stopped: whether it was asked to, be it too late.
    """

    done: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    blamed: dict[int, dict[int, str]] = field(default_factory=dict)
    interrupted: bool = False
    stopped: bool = False


def run(
    plan: Sequence[Work],
    function: Function[Work, Result],
    sink: Sink[Result],
    *,
    driver: Driver,
    listener: Listener | None = None,
) -> RunReport:
    """Take every piece of a plan through function and sink.

    Args:
        plan: the pieces to compute, for example shards.
        function: piece -> its results, for example a part.
        sink: keeps them.
        driver: who does it, for example `LocalDriver`.
        listener: hears what becomes of each piece, for example a progress bar.

    Raises:
        StorageError: results cannot be kept; finished parts are whole.
        RequestError: the function cannot work at all, for example because a file it needs is gone.
    """
    report, stop, listener = RunReport(), StopFlag(), listener or _Nobody()
    with stop.listening(listener.note):
        for event in driver(plan, function, sink, stop):
            piece = event.piece
            if event.blamed:
                report.blamed[piece.number] = {**report.blamed.get(piece.number, {}), **event.blamed}
                images = "an image" if len(event.blamed) == 1 else f"{len(event.blamed)} images"
                listener.note(f"{piece.title} is computed without {images} under which workers fail")
            elif is_trial(piece):
                pass  # of a search, which is told of
            elif not event.final:
                listener.note(f"{piece.title} failed and is tried again: {event.error}")
            elif event.error:
                report.failed[piece.number] = event.error
                listener.note(f"{piece.title} failed too often and is left out: {event.error}")
            else:
                report.done.append(piece.number)
            listener.hear(event)
    report.stopped = stop.stopped
    report.interrupted = stop.stopped and len(report.done) + len(report.failed) < len(plan)
    return report


def carry_out(
    piece: Work, function: Function[Work, Result], sink: Sink[Result], ahead: Work | None = None
) -> None:
    """One piece, in whatever process; the result of a trial is thrown away."""
    result = function(piece, ahead)
    if not is_trial(piece):
        sink(result)

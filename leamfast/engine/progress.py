"""Progress of a long run: a bar on a terminal, plain lines elsewhere; always on stderr."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["WorkProgress"]

LINE_SECONDS = 10.0


class WorkProgress:
    """Counts images, pairs or whatever is worked on; a context manager.

    Args:
        what: what is done to them, for the reader.
        total: how many there are in all.
        done: how many were finished by an earlier run.
        unit: what is counted.
    """

    def __init__(self, what: str, total: int, done: int = 0, unit: str = "images") -> None:
        self.what, self.total, self.done, self.unit = what, total, done, unit
        self.before = done
        self.started = self.last_line = time.monotonic()
        self.bar: Progress | None = None
        console = Console(file=sys.stderr)
        if console.is_terminal:
            self.bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self.task = self.bar.add_task(what, total=total, completed=done, rate="")

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.done > self.before and self.bar is None:
            self._line()

    @property
    def rate(self) -> float:
        """How many per second in this run."""
        return (self.done - self.before) / max(time.monotonic() - self.started, 1e-9)

    def advance(self, amount: int) -> None:
        """Some more are finished."""
        self.done += amount
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, rate=f"{self.rate:.1f} {self.unit}/s")
        elif time.monotonic() - self.last_line >= LINE_SECONDS and self.done < self.total:
            self._line()

    def note(self, text: str) -> None:
        """A line for the reader, without disturbing the bar."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _line(self) -> None:
        self.last_line = time.monotonic()
        left = (self.total - self.done) / max(self.rate, 1e-9)
        print(
            f"{self.what}: {self.done} of {self.total} {self.unit}, {self.rate:.1f} {self.unit}/s, "
            f"{left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

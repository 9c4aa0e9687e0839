"""Progress of a long run: a bar on a terminal, plain lines elsewhere, on stderr; and lines in a file."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from leamfast.engine.agenda import Event

__all__ = ["WorkProgress"]

LINE_SECONDS = 10.0
LOG_SECONDS = 1.0


class WorkProgress:
    """Counts images, pairs or whatever is worked on; a context manager, and the listener of a run.

    Args:
        what: what is done to them, for the reader.
        total: how many there are in all.
        done: how many were finished by an earlier run.
        unit: what is counted.
        log: a file that takes the same as JSON lines, one a second at most, after those of earlier runs.
    """

    def __init__(
        self, what: str, total: int, done: int = 0, unit: str = "images", log: Path | None = None
    ) -> None:
        self.what, self.total, self.done, self.unit, self.log = what, total, done, unit, log
        self.before = done
        self.failures = 0
        self.started = self.last_line = time.monotonic()
        self.last_log = -LOG_SECONDS
        self.busy: dict[str, float] = {}
        self.spans: dict[str, tuple[float, float]] = {}
        self.file: TextIO | None = None
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
        if self.log is not None:
            self.file = self.log.open("a", encoding="utf-8")
        self._write_log("begins")
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
        self._write_log("ends")
        if self.file is not None:
            self.file.close()

    @property
    def rate(self) -> float:
        """How many per second in this run."""
        return (self.done - self.before) / max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; None while there is none."""
        return None if self.done == self.before else (self.total - self.done) / max(self.rate, 1e-9)

    @property
    def utilisation(self) -> float | None:
        """Share of the time between their first and last piece that workers had one in hand."""
        span = sum(end - begin for begin, end in self.spans.values())
        return sum(self.busy.values()) / span if span > 0 else None

    def hear(self, event: Event) -> None:
        """Something became of a piece."""
        if event.worker and event.ended > event.began:
            begin, end = self.spans.get(event.worker, (event.began, event.ended))
            self.spans[event.worker] = min(begin, event.began), max(end, event.ended)
            self.busy[event.worker] = self.busy.get(event.worker, 0.0) + event.ended - event.began
        if event.error:
            self.failures += 1
        if event.error:
            self._write_log("failed", piece=event.piece.title, reason=event.error)
        if event.final:
            self.advance(event.piece.amount)

    def advance(self, amount: int) -> None:
        """Some more are finished."""
        self.done += amount
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, rate=self._rate_text())
        elif time.monotonic() - self.last_line >= LINE_SECONDS and self.done < self.total:
            self._line()
        if time.monotonic() - self.last_log >= LOG_SECONDS:
            self.last_log = time.monotonic()
            self._write_log("goes on")

    def note(self, text: str) -> None:
        """A line for the reader, without disturbing the bar."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)
        self._write_log("note", text=text)

    def _rate_text(self) -> str:
        text = f"{self.rate:.1f} {self.unit}/s"
        if len(self.spans) > 1 and self.utilisation is not None:
            text += f", {len(self.spans)} workers {self.utilisation:.0%} busy"
        if self.failures:
            text += f", {self.failures} failures"
        return text

    def _line(self) -> None:
        self.last_line = time.monotonic()
        left = "" if self.seconds_left is None else f", {self.seconds_left:.0f} s left"
        print(
            f"{self.what}: {self.done} of {self.total} {self.unit}, {self._rate_text()}{left}",
            file=sys.stderr,
            flush=True,
        )

    def _write_log(self, what: str, **more: str) -> None:
        if self.file is None:
            return
        line: Mapping[str, object] = {
            "time": round(time.time(), 3),
            "what": what,
            "pass": self.what,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "per_second": round(self.rate, 3),
            "workers": len(self.spans),
            "utilisation": None if self.utilisation is None else round(self.utilisation, 4),
            "failures": self.failures,
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
            **more,
        }
        try:
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()
        except OSError:  # a full disk ends the run where results are written, not where it is told of
            self.file.close()
            self.file = None

"""The local driver: pieces in this process, or in worker processes that die with it."""

import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from leamfast.engine.agenda import Agenda, Event, is_trial
from leamfast.engine.plan import Piece
from leamfast.engine.run import ATTEMPTS, FATAL, Function, Sink, StopFlag, carry_out
from leamfast.engine.time_limit import TimeLimit

__all__ = ["LocalDriver", "reason_of"]

START = 600.0  # seconds that a worker may take to begin: to start, to import, to load models
LEAVE = 10.0  # seconds that a worker without work has to end by itself


class LocalDriver:
    """Computes pieces on this machine.

    Args:
        workers: 0 computes in this process, N in that many worker processes.
        max_attempts: how often a piece may fail before it is bisected, or left out.
        limit: how long a worker process may take over a piece.
    """

    def __init__(
        self, workers: int = 0, max_attempts: int = ATTEMPTS, limit: TimeLimit | None = None
    ) -> None:
        self.workers, self.max_attempts, self.limit = workers, max_attempts, limit or TimeLimit()

    def __call__(
        self, plan: Sequence[Piece], function: Function, sink: Sink, stop: StopFlag
    ) -> Iterator[Event]:
        """See `engine.run.Driver`."""
        agenda = Agenda(plan, self.max_attempts)
        if self.workers == 0:
            return _in_this_process(agenda, function, sink, stop)
        return _in_workers(agenda, function, sink, stop, min(self.workers, len(plan)), self.limit)


def _in_this_process(agenda: Agenda, function: Function, sink: Sink, stop: StopFlag) -> Iterator[Event]:
    while agenda.waiting and not stop.stopped:
        piece = agenda.waiting.popleft()
        began = time.monotonic()
        try:
            carry_out(piece, function, sink, agenda.waiting[0] if agenda.waiting else None)
        except FATAL:
            raise
        except Exception as exc:
            yield from agenda.failed(piece, reason_of(exc))
        else:
            yield from agenda.finished(piece, "this process", began, time.monotonic())


class _Worker:
    """A worker process, the piece it has in hand, and the one that it may have begun."""

    def __init__(self, function: Function, sink: Sink) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(theirs, function, sink), daemon=True)
        # A Ctrl-C must not hit a worker that is still importing: it is born deaf to it.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        theirs.close()
        self.piece: Piece | None = None
        self.ahead: Piece | None = None
        self.began = 0.0
        self.ready = False
        self.hung = ""

    @property
    def name(self) -> str:
        return f"process {self.process.pid}"

    def send(self, piece: Piece, ahead: Piece | None) -> None:
        self.piece, self.ahead, self.began = piece, ahead, time.monotonic()
        with suppress(BrokenPipeError):  # a worker that died is noticed by what it does not answer
            self.pipe.send((piece, ahead))

    def take(self) -> tuple[str, BaseException | None] | None:
        """The answer to the piece in hand: an empty reason when it is finished; None when it begins only now.

        What a process takes to start, to import and to load models is not the piece's time.
        """
        try:
            answer = self.pipe.recv()
            if answer is None:
                self.ready, self.began = True, time.monotonic()
            return answer
        except (EOFError, OSError):
            self.process.join()
            if self.hung:
                return self.hung, None
            code = self.process.exitcode or 0
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
            return f"worker process ended with {how}", None

    def end_if_hung(self, limit: TimeLimit) -> None:
        """Kill a worker that has had its piece for too long; what it does not answer is noticed."""
        if self.piece is not None and not self.hung:
            allowed = limit.of(self.piece) if self.ready else max(START, limit.of(self.piece))
            if time.monotonic() - self.began > allowed:
                self.hung = f"not finished within {allowed:.0f} s, its worker was ended"
                limit.exceeded(self.piece)
                self.process.kill()

    def end(self) -> None:
        self.pipe.close()
        if self.piece is None:
            self.process.join(LEAVE)  # to remove what compiled programs keep on disk
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _in_workers(
    agenda: Agenda, function: Function, sink: Sink, stop: StopFlag, count: int, limit: TimeLimit
) -> Iterator[Event]:
    workers: list[_Worker] = []
    try:
        while True:
            while agenda.waiting and not stop.stopped:
                idle = next((worker for worker in workers if worker.piece is None), None)
                if idle is None and len(workers) == count:
                    break
                if idle is None:
                    idle = _Worker(function, sink)
                    workers.append(idle)
                idle.send(*_choose(agenda, idle, workers))
            busy = {w.pipe: w for w in workers if w.piece is not None}
            if not busy:
                return
            for pipe in wait(list(busy), timeout=1.0):
                worker = busy[pipe]  # type: ignore[index]
                name = worker.name
                answer = worker.take()
                if answer is None:
                    continue
                reason, fatal = answer
                piece, worker.piece = worker.piece, None
                assert piece is not None
                if worker.hung or not worker.process.is_alive():  # it may answer as it is being ended
                    worker.end()
                    workers.remove(worker)
                if fatal is not None:
                    raise fatal
                ended = time.monotonic()
                if reason:
                    yield from agenda.failed(piece, reason, name)
                else:
                    if not is_trial(piece):  # which is only some of its images
                        limit.learn(piece, ended - worker.began)
                    yield from agenda.finished(piece, name, worker.began, ended)
            for worker in workers:
                worker.end_if_hung(limit)
    finally:
        for worker in workers:
            worker.pipe.close()  # so that all leave at the same time
        for worker in workers:
            worker.end()


def _choose(agenda: Agenda, idle: _Worker, workers: Sequence[_Worker]) -> tuple[Piece, Piece | None]:
    """Take the piece for an idle worker from those that wait: what it began, or what no other has.

    Returns:
        the piece; and one that it may begin meanwhile, which goes on waiting. None where one of the two has
        failed before: a worker that dies must have died of the piece that it has.
    """
    waiting = agenda.waiting
    begun = {worker.ahead.number for worker in workers if worker is not idle and worker.ahead is not None}
    free = (piece for piece in waiting if piece.number not in begun)
    piece = idle.ahead if idle.ahead in waiting else next(free, waiting[0])
    assert piece is not None
    waiting.remove(piece)
    if piece.number in agenda.failures:
        return piece, None
    fresh = (other for other in waiting if other.number not in begun | agenda.failures.keys())
    return piece, next(fresh, None)


def _work(pipe: Connection, function: Function, sink: Sink) -> None:
    """A worker process: take pieces until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_die_with_driver, daemon=True).start()
    load = getattr(function, "load", lambda programs: None)
    begun = False
    while True:
        try:
            piece, ahead = pipe.recv()
        except (EOFError, OSError):
            return
        answer: tuple[str, BaseException | None] = ("", None)
        try:
            if not begun:
                load({})
                begun = True
                with suppress(BrokenPipeError):
                    pipe.send(None)
            carry_out(piece, function, sink, ahead)
        except FATAL as exc:
            answer = reason_of(exc), exc
        except Exception as exc:
            answer = reason_of(exc), None
        with suppress(BrokenPipeError):
            pipe.send(answer)


def _die_with_driver() -> None:
    driver = mp.parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os._exit(1)


def reason_of(exc: BaseException) -> str:
    """What an error says, in one line."""
    return f"{type(exc).__name__}: {exc}".splitlines()[0]

"""The local driver: pieces in this process, or in worker processes that die with it."""

import multiprocessing as mp
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from leamfast.engine.plan import Piece
from leamfast.engine.run import ATTEMPTS, FATAL, Event, Function, Sink, StopFlag

__all__ = ["LocalDriver"]

LEAVE = 10.0  # seconds that a worker without work has to end by itself


class LocalDriver:
    """Computes pieces on this machine.

    Args:
        workers: 0 computes in this process, N in that many worker processes.
    """

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers

    def __call__(
        self, plan: Sequence[Piece], function: Function, sink: Sink, stop: StopFlag
    ) -> Iterator[Event]:
        """See `engine.run.Driver`."""
        if self.workers == 0:
            return _in_this_process(plan, function, sink, stop)
        return _in_workers(plan, function, sink, stop, min(self.workers, len(plan)))


def _in_this_process(
    plan: Sequence[Piece], function: Function, sink: Sink, stop: StopFlag
) -> Iterator[Event]:
    for piece, ahead in zip_longest(plan, plan[1:]):
        for attempt in range(1, ATTEMPTS + 1):
            if stop.stopped:
                return
            try:
                sink(function(piece, ahead))
            except FATAL:
                raise
            except Exception as exc:
                yield Event(piece, _reason(exc), final=attempt == ATTEMPTS)
            else:
                yield Event(piece)
                break


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

    def send(self, piece: Piece, ahead: Piece | None) -> None:
        self.piece, self.ahead = piece, ahead
        with suppress(BrokenPipeError):  # a worker that died is noticed by what it does not answer
            self.pipe.send((piece, ahead))

    def take(self) -> tuple[str, BaseException | None]:
        """The answer to the piece in hand: an empty reason when it is finished."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
            return f"worker process ended with {how}", None

    def end(self) -> None:
        self.pipe.close()
        if self.piece is None:
            self.process.join(LEAVE)  # to remove what compiled programs keep on disk
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _in_workers(
    plan: Sequence[Piece], function: Function, sink: Sink, stop: StopFlag, count: int
) -> Iterator[Event]:
    waiting = deque(plan)
    attempts: dict[int, int] = {}
    workers: list[_Worker] = []
    try:
        while True:
            while waiting and not stop.stopped:
                idle = next((worker for worker in workers if worker.piece is None), None)
                if idle is None and len(workers) == count:
                    break
                if idle is None:
                    idle = _Worker(function, sink)
                    workers.append(idle)
                idle.send(*_choose(waiting, idle, workers))
            busy = {w.pipe: w for w in workers if w.piece is not None}
            if not busy:
                return
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                reason, fatal = worker.take()
                piece, worker.piece = worker.piece, None
                assert piece is not None
                if not worker.process.is_alive():
                    worker.end()
                    workers.remove(worker)
                if fatal is not None:
                    raise fatal
                final = True
                if reason:
                    attempts[piece.number] = attempts.get(piece.number, 0) + 1
                    final = attempts[piece.number] == ATTEMPTS
                    if not final:
                        waiting.append(piece)
                yield Event(piece, reason, final)
    finally:
        for worker in workers:
            worker.pipe.close()  # so that all leave at the same time
        for worker in workers:
            worker.end()


def _choose(waiting: deque[Piece], idle: _Worker, workers: Sequence[_Worker]) -> tuple[Piece, Piece | None]:
    """Take the piece for an idle worker from those that wait: what it began, or what no other has.

    Returns:
        the piece; and one that it may begin meanwhile, which goes on waiting.
    """
    begun = {worker.ahead.number for worker in workers if worker is not idle and worker.ahead is not None}
    free = (piece for piece in waiting if piece.number not in begun)
    piece = idle.ahead if idle.ahead in waiting else next(free, waiting[0])
    assert piece is not None
    waiting.remove(piece)
    return piece, next((other for other in waiting if other.number not in begun), None)


def _work(pipe: Connection, function: Function, sink: Sink) -> None:
    """A worker process: take pieces until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_die_with_driver, daemon=True).start()
    while True:
        try:
            piece, ahead = pipe.recv()
        except (EOFError, OSError):
            return
        answer: tuple[str, BaseException | None] = ("", None)
        try:
            sink(function(piece, ahead))
        except FATAL as exc:
            answer = _reason(exc), exc
        except Exception as exc:
            answer = _reason(exc), None
        with suppress(BrokenPipeError):
            pipe.send(answer)


def _die_with_driver() -> None:
    driver = mp.parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os._exit(1)


def _reason(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}".splitlines()[0]

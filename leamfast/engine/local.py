"""The local driver: shards in this process, or in worker processes that die with it."""

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

from leamfast.engine.plan import Shard
from leamfast.engine.run import ATTEMPTS, FATAL, Event, Function, Sink, StopFlag

__all__ = ["LocalDriver"]

LEAVE = 10.0  # seconds that a worker without work has to end by itself


class LocalDriver:
    """Computes shards on this machine.

    Args:
        workers: 0 computes in this process, N in that many worker processes.
    """

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers

    def __call__(
        self, plan: Sequence[Shard], function: Function, sink: Sink, stop: StopFlag
    ) -> Iterator[Event]:
        """See `engine.run.Driver`."""
        if self.workers == 0:
            return _in_this_process(plan, function, sink, stop)
        return _in_workers(plan, function, sink, stop, min(self.workers, len(plan)))


def _in_this_process(
    plan: Sequence[Shard], function: Function, sink: Sink, stop: StopFlag
) -> Iterator[Event]:
    for shard, ahead in zip_longest(plan, plan[1:]):
        for attempt in range(1, ATTEMPTS + 1):
            if stop.stopped:
                return
            try:
                sink(function(shard, ahead))
            except FATAL:
                raise
            except Exception as exc:
                yield Event(shard, _reason(exc), final=attempt == ATTEMPTS)
            else:
                yield Event(shard)
                break


class _Worker:
    """A worker process, the shard it has in hand, and the one that it may have begun."""

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
        self.shard: Shard | None = None
        self.ahead: Shard | None = None

    def send(self, shard: Shard, ahead: Shard | None) -> None:
        self.shard, self.ahead = shard, ahead
        with suppress(BrokenPipeError):  # a worker that died is noticed by what it does not answer
            self.pipe.send((shard, ahead))

    def take(self) -> tuple[str, BaseException | None]:
        """The answer to the shard in hand: an empty reason when it is finished."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
            return f"worker process ended with {how}", None

    def end(self) -> None:
        self.pipe.close()
        if self.shard is None:
            self.process.join(LEAVE)  # to remove what compiled programs keep on disk
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _in_workers(
    plan: Sequence[Shard], function: Function, sink: Sink, stop: StopFlag, count: int
) -> Iterator[Event]:
    waiting = deque(plan)
    attempts: dict[int, int] = {}
    workers: list[_Worker] = []
    try:
        while True:
            while waiting and not stop.stopped:
                idle = next((worker for worker in workers if worker.shard is None), None)
                if idle is None and len(workers) == count:
                    break
                if idle is None:
                    idle = _Worker(function, sink)
                    workers.append(idle)
                idle.send(*_choose(waiting, idle, workers))
            busy = {w.pipe: w for w in workers if w.shard is not None}
            if not busy:
                return
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                reason, fatal = worker.take()
                shard, worker.shard = worker.shard, None
                assert shard is not None
                if not worker.process.is_alive():
                    worker.end()
                    workers.remove(worker)
                if fatal is not None:
                    raise fatal
                final = True
                if reason:
                    attempts[shard.number] = attempts.get(shard.number, 0) + 1
                    final = attempts[shard.number] == ATTEMPTS
                    if not final:
                        waiting.append(shard)
                yield Event(shard, reason, final)
    finally:
        for worker in workers:
            worker.pipe.close()  # so that all leave at the same time
        for worker in workers:
            worker.end()


def _choose(waiting: deque[Shard], idle: _Worker, workers: Sequence[_Worker]) -> tuple[Shard, Shard | None]:
    """Take the shard for an idle worker from those that wait: what it began, or what no other has.

    Returns:
        the shard; and one that it may begin meanwhile, which goes on waiting.
    """
    begun = {worker.ahead.number for worker in workers if worker is not idle and worker.ahead is not None}
    free = (shard for shard in waiting if shard.number not in begun)
    shard = idle.ahead if idle.ahead in waiting else next(free, waiting[0])
    assert shard is not None
    waiting.remove(shard)
    return shard, next((other for other in waiting if other.number not in begun), None)


def _work(pipe: Connection, function: Function, sink: Sink) -> None:
    """A worker process: take shards until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_die_with_driver, daemon=True).start()
    while True:
        try:
            shard, ahead = pipe.recv()
        except (EOFError, OSError):
            return
        answer: tuple[str, BaseException | None] = ("", None)
        try:
            sink(function(shard, ahead))
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

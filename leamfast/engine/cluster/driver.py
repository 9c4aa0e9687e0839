"""The Ray driver: pieces go to preparing actors, then to computing ones, and their results to the disk.

Ray places actors, starts those that died anew, and moves what is prepared to where it is computed. The driver
hands out pieces, a few at a time, and reads small answers; results do not pass through it.
"""

import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from leamfast.engine.agenda import Agenda, Event, is_trial
from leamfast.engine.cluster.actors import Answer, Work, answered
from leamfast.engine.cluster.connection import is_client
from leamfast.engine.cluster.hands import Hand, Task, Team
from leamfast.engine.plan import Piece
from leamfast.engine.run import ATTEMPTS, Function, Listener, Sink, Staged, StopFlag
from leamfast.engine.time_limit import TimeLimit
from leamfast.errors import RequestError
from leamfast.store.atomic import write_atomically

__all__ = ["RayDriver"]

UNWRITTEN_MOST = 2
"""Results of an actor that may wait for the disk before it is given another piece: memory has an end."""

IN_HAND = 2
"""Pieces that a computing actor has, where others prepare for it: the one that it computes, and one whose
crops come to it meanwhile."""

GLANCE = 0.2  # seconds after which Ctrl-C is noticed

PATIENCE = 600.0
"""Seconds to wait for any computing actor before the run ends."""

REMIND = 30.0  # seconds between reminders that machines are waited for
AGAIN = 1.0  # seconds until an actor that cannot be reached is called again: Ray may be starting it elsewhere
KNOCK = 3.0  # seconds that a node has to take a connection
MOST_DEATHS = 3
MOST_SPARED = 3  # nodes that may be lost under a piece before it is suspected
LOST = "what was prepared for it was lost with its node"
DIED = "its worker process died"
UNREAD = f"{DIED} before its result was read"
UNWRITTEN = f"{DIED} while it wrote the result"


@dataclass(eq=False)
class _Writing:
    """A result on its way to the disk."""

    hand: Hand
    piece: Piece
    answer: Answer
    value: Any


class RayDriver:
    """Computes pieces on the actors of a team.

    Args:
        team: the actors.
        folder: folder of the results, which a probe tells actors to share with us or not.
        device: name of the device that all values are computed on; actors with another one get no work.
        files: reference to compiled programs by the name of their file.
        max_attempts: how often a piece may fail before it is bisected, or left out.
        limit: how long an actor may take over a piece.
        listener: hears what is going on with actors.
    """

    def __init__(
        self,
        team: Team,
        folder: Path,
        device: str,
        files: Any,
        listener: Listener,
        max_attempts: int = ATTEMPTS,
        limit: TimeLimit | None = None,
    ) -> None:
        import ray

        self.ray, self.team, self.folder, self.device, self.files = ray, team, folder, device, files
        self.listener, self.max_attempts, self.limit = listener, max_attempts, limit or TimeLimit()

    def __call__(
        self, plan: Sequence[Piece], function: Function, sink: Sink, stop: StopFlag
    ) -> Iterator[Event]:
        """See `engine.run.Driver`."""
        probe = self.folder / f".probe-{uuid.uuid4().hex}.tmp"  # as `sweep` knows it, if we are killed
        content = uuid.uuid4().hex
        write_atomically(probe, content.encode())
        try:
            work = self.ray.put(Work(function, sink, (probe, content), self.device))
            flow = _Flow(self, Agenda(plan, self.max_attempts), work, sink, isinstance(function, Staged))
            yield from flow.run(stop)
        finally:
            with suppress(OSError):  # a folder that refuses to be written has ended the run, and is told of
                probe.unlink(missing_ok=True)


class _Flow:
    """One pass of pieces through the team."""

    def __init__(self, driver: RayDriver, agenda: Agenda, work: Any, sink: Sink, staged: bool) -> None:
        self.ray, self.team, self.limit, self.listener = (
            driver.ray, driver.team, driver.limit, driver.listener
        )  # fmt: skip
        self.device, self.files = driver.device, driver.files
        self.preparing = TimeLimit(driver.limit.seconds)
        self.agenda, self.work, self.sink, self.client = agenda, work, sink, is_client()
        self.preparers = self.team.preparers if staged else []
        self.hands = [*self.team.computers, *self.preparers]
        self.prepared: deque[tuple[Piece, Any]] = deque()
        self.writing: dict[Any, _Writing] = {}
        self.attempts = 0
        self.spared: Counter[int] = Counter()
        self.reminded = self.waited = time.monotonic()

    def run(self, stop: StopFlag) -> Iterator[Event]:
        for hand in self.hands:
            if not hand.useless:
                self._call(hand)
        while True:
            self._call_again()
            if not stop.stopped:
                self._prepare()
                self._compute()
            if self._nothing_to_wait_for(stop):
                return
            handlers = self._awaited()
            if not handlers:
                time.sleep(GLANCE)
                ready = []
            else:
                ready, _ = self.ray.wait(list(handlers), num_returns=1, timeout=GLANCE, fetch_local=False)
            for reference in ready:
                yield from handlers[reference](reference)
            self._end_the_hung()
            self._remind()

    def _nothing_to_wait_for(self, stop: StopFlag) -> bool:
        # What is only prepared when Ctrl-C comes is of no use.
        if self.writing or any(hand.tasks for hand in (self.team.computers if stop.stopped else self.hands)):
            return False
        return stop.stopped or not (self.agenda.waiting or self.prepared)

    def _awaited(self) -> dict[Any, Any]:
        """Reference -> what to do when it is there."""
        found: dict[Any, Any] = dict.fromkeys(self.writing, self._written)
        for hand in self.hands:
            if hand.called is not None:
                found[hand.called] = lambda reference, hand=hand: self._there(hand)
            elif hand.beginning is not None:
                found[hand.beginning] = lambda reference, hand=hand: self._begun(hand)
            elif hand.tasks:
                found[hand.tasks[0].answer] = lambda reference, hand=hand: self._answered(hand)
        return found

    # Actors

    def _call(self, hand: Hand) -> None:
        """Find out where an actor is; it begins, with nothing in hand, when it answers."""
        hand.tasks, hand.hung, hand.asleep, hand.beginning = [], "", None, None
        hand.called = hand.actor.here.remote()

    def _call_again(self) -> None:
        now = time.monotonic()
        for hand in self.hands:
            if hand.asleep is not None and now >= hand.asleep:
                self._call(hand)

    def _there(self, hand: Hand) -> Iterator[Event]:
        called, hand.called = hand.called, None
        try:
            hand.node = self.ray.get(called)
        except self.ray.exceptions.ActorUnavailableError:
            # Its process or node died; Ray starts it again as soon as there is room, which may take long.
            hand.asleep = time.monotonic() + AGAIN
        except self.ray.exceptions.RayError as exc:
            self._not_begun(hand, exc)
        else:
            self._begin(hand)
        yield from ()

    def _not_begun(self, hand: Hand, exc: Exception) -> None:
        """An actor died before it could work: it is called again, and left out in the end."""
        hand.deaths += 1
        if hand.deaths <= MOST_DEATHS:
            self._call(hand)
            return
        self._dismiss(hand, f"it died {hand.deaths} times before it had begun ({_last_line(exc)})")

    def _dismiss(self, hand: Hand, reason: str) -> None:
        """An actor gets no work.

        Raises:
            RequestError: it was the last one of its kind.
        """
        hand.useless = True
        text = f"{hand.name} is left out: {reason}"
        kind = self.preparers if hand in self.preparers else self.team.computers
        if all(other.useless for other in kind):
            raise RequestError(
                f"{text}; it was the last one: leamfast must be installed on every node in this version, and "
                "find data and weights at the same paths; see Ray's logs"
            )
        self.listener.note(text)

    def _begin(self, hand: Hand) -> None:
        arguments = (self.work, self.files) if hand in self.team.computers else (self.work,)
        hand.beginning = hand.actor.begin.remote(*arguments)

    def _begun(self, hand: Hand) -> Iterator[Event]:
        try:
            answer, hand.hello = self.ray.get(hand.beginning)
        except self.ray.exceptions.RayError as exc:
            hand.beginning = None
            self._not_begun(hand, exc)
            return
        hand.beginning, hand.deaths = None, 0
        if answer.error:
            self._dismiss(hand, f"it cannot begin: {answer.error}")
        elif hand.hello is not None and hand.hello.device_name != self.device:
            self._dismiss(
                hand,
                f"it computes on {hand.hello.device_name} where this run computes on {self.device}, which "
                "gives other bits",
            )
        yield from ()

    def _died(self, hand: Hand) -> list[Event]:
        """An actor did not answer: the piece that it had begun is to blame, not those that waited for it."""
        first, *others = hand.tasks
        self._give_back(others)
        hung = hand.hung
        self._call(hand)
        return self._failed(first.piece, hand, hung or DIED, spare=not hung and self._is_lost(hand.node))

    def _failed(self, piece: Piece, hand: Hand, reason: str, *, spare: bool) -> list[Event]:
        """A piece failed; for the loss of a node it is spared, unless nodes are lost under it for ever."""
        if spare and self.spared[piece.number] < MOST_SPARED:
            self.spared[piece.number] += 1
            self.agenda.put_back(piece)
            return []
        return self.agenda.failed(piece, reason, hand.name)

    def _is_lost(self, name: str) -> bool:
        """Whether a node is gone; Ray itself takes a while to notice."""
        node = next((node for node in self.ray.nodes() if node["NodeID"] == name), None)
        if node is None or not node["Alive"]:
            return True
        if self.client:  # nodes need not be within our reach
            return False
        try:
            socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), KNOCK).close()
        except OSError:
            return True
        return False

    def _is_loss(self, exc: BaseException) -> bool:
        """Whether what a call was to work on is gone; its own errors are other ones."""
        lost = self.ray.exceptions.ObjectLostError
        return isinstance(exc, lost) or isinstance(getattr(exc, "cause", None), lost)

    def _give_back(self, tasks: Sequence[Task]) -> None:
        for task in reversed(tasks):
            self.agenda.put_back(task.piece)

    def _end_the_hung(self) -> None:
        for hand in self.hands:
            if hand.tasks and not hand.hung:
                task = hand.tasks[0]
                limit = self.preparing if hand in self.preparers else self.limit
                allowed = limit.of(task.piece)
                if time.monotonic() - task.since > allowed:
                    hand.hung = f"not finished within {allowed:.0f} s, its worker was ended"
                    limit.exceeded(task.piece)
                    self.ray.kill(hand.actor, no_restart=False)

    def _remind(self) -> None:
        """Tell who waits for machines what is missing, and give up in the end."""
        now = time.monotonic()
        teams = {"computing": self.team.computers, "preparing": self.preparers}
        absent = [kind for kind, team in teams.items() if team and not any(hand.ready for hand in team)]
        if not absent:
            self.reminded = self.waited = now
            return
        if all(hand.useless for hand in self.team.computers):
            raise RequestError(f"no actor computes on {self.device}, as this run began: use such machines")
        if now - self.waited > PATIENCE:
            raise RequestError(f"no {absent[0]} actor could begin within {PATIENCE:.0f} s: {self._offer()}")
        if now - self.reminded > REMIND:
            self.reminded = now
            self.listener.note(f"waiting for {len(teams[absent[0]])} {absent[0]} actors: {self._offer()}")

    def _offer(self) -> str:
        total, free = self.ray.cluster_resources(), self.ray.available_resources()
        return ", ".join(
            f"{free.get(kind, 0):.0f} of {total.get(kind, 0):.0f} {kind}s are free" for kind in ("GPU", "CPU")
        )

    # Pieces

    def _prepare(self) -> None:
        """A piece to each idle preparer, as long as few are prepared that nobody computes."""
        for hand in self.preparers:
            ahead = len(self.prepared) + sum(len(other.tasks) for other in self.preparers)
            if not self.agenda.waiting or ahead >= len(self.preparers) + len(self.team.computers):
                return
            if hand.ready and not hand.tasks:
                piece = self.agenda.waiting.popleft()
                answer, value = hand.actor.prepare.options(num_returns=2).remote(piece)
                hand.take(Task("", piece, answer, value, time.monotonic()))

    def _compute(self) -> None:
        """A piece to each computing actor with a hand free, first to those with none."""
        written = Counter(id(writing.hand) for writing in self.writing.values())
        for held in range(IN_HAND if self.preparers else 1):
            for hand in self.team.computers:
                if not hand.ready or len(hand.tasks) != held or written[id(hand)] >= UNWRITTEN_MOST:
                    continue
                if self.preparers:
                    if not self.prepared:
                        return
                    piece, prepared = self.prepared.popleft()
                elif self.agenda.waiting:
                    piece, prepared = self.agenda.waiting.popleft(), None
                else:
                    return
                self.attempts += 1
                key = f"{piece.number}-{self.attempts}"
                answer, value = hand.actor.compute.options(num_returns=2).remote(key, piece, prepared)
                hand.take(Task(key, piece, answer, value, time.monotonic()))

    def _answered(self, hand: Hand) -> Iterator[Event]:
        """The first piece in an actor's hand is prepared, or computed."""
        task = hand.tasks[0]
        try:
            answer: Answer = self.ray.get(task.answer)
        except (self.ray.exceptions.RayTaskError, self.ray.exceptions.ObjectLostError) as exc:
            hand.drop(task)  # the actor is well
            if self._is_loss(exc):
                yield from self._failed(task.piece, hand, LOST, spare=True)
            else:
                yield from self._failed(task.piece, hand, _last_line(exc), spare=False)
            return
        except self.ray.exceptions.RayError:
            yield from self._died(hand)
            return
        if answer.lost:
            self._give_back(hand.tasks)
            self._call(hand)
            return
        hand.drop(task)
        if hand.hung:  # it answered while it was being ended: what waited for it is not to blame
            self._give_back(hand.tasks)
            self._call(hand)
        if answer.fatal is not None:
            raise answer.fatal
        if answer.error:
            yield from self.agenda.failed(task.piece, answer.error, hand.name)
        elif hand in self.preparers:
            self.preparing.learn(task.piece, answer.ended - answer.began)
            self.prepared.append((task.piece, task.value))
        else:
            yield from self._write(hand, task, answer)

    def _write(self, hand: Hand, task: Task, answer: Answer) -> Iterator[Event]:
        assert hand.hello is not None
        if is_trial(task.piece):  # its result is thrown away
            yield from self._finished(hand, task.piece, answer)
            return
        if self.client and not hand.hello.writes:  # no actor is on this machine: it writes itself
            try:
                result = self.ray.get(task.value)
            except self.ray.exceptions.RayError:
                yield from self._failed(task.piece, hand, UNREAD, spare=self._is_lost(hand.node))
                return
            written, _ = answered(partial(self.sink, result))
            yield from self._kept(hand, task.piece, answer, written)
            return
        if hand.hello.writes:
            reference = hand.actor.finish.remote(task.key)
        else:
            reference = self.team.writer(len(self.writing)).write.remote(self.sink, task.value)
        self.writing[reference] = _Writing(hand, task.piece, answer, task.value)

    def _written(self, reference: Any) -> Iterator[Event]:
        writing = self.writing.pop(reference)
        piece, computed = writing.piece, writing.answer
        try:
            written: Answer = self.ray.get(reference)
        except self.ray.exceptions.RayError as exc:
            hand = writing.hand
            if isinstance(exc, self.ray.exceptions.RayTaskError) and not self._is_loss(exc):
                yield from self._failed(piece, hand, _last_line(exc), spare=False)
                return
            writes = hand.hello is not None and hand.hello.writes
            if writes and hand.tasks:  # the piece that it has in hand is to blame, not this one
                self.agenda.put_back(piece)
                return
            lost = self._is_lost(hand.node)
            if hand.ready and writes:
                self._call(hand)
            yield from self._failed(piece, hand, UNWRITTEN, spare=lost)
            return
        if written.lost:
            self.agenda.put_back(piece)
            return
        yield from self._kept(writing.hand, piece, computed, written)

    def _kept(self, hand: Hand, piece: Piece, computed: Answer, written: Answer) -> list[Event]:
        """A result is where it belongs, or could not be brought there."""
        if written.fatal is not None:
            raise written.fatal
        if written.error:
            return self.agenda.failed(piece, written.error, hand.name)
        return self._finished(hand, piece, computed)

    def _finished(self, hand: Hand, piece: Piece, answer: Answer) -> list[Event]:
        if not is_trial(piece):  # which is only some of its images
            self.limit.learn(piece, answer.ended - answer.began)
        worker = f"{hand.name} on {hand.node}"  # whose clock it is
        return self.agenda.finished(piece, worker, answer.began, answer.ended)


def _last_line(exc: BaseException) -> str:
    return [line.strip() for line in str(exc).splitlines() if line.strip()][-1]

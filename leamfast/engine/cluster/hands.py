"""The actors of a run as its driver sees them: which are ready, and what each has in hand."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leamfast.engine.cluster.actors import Computer, Hello, Preparer, Writer
from leamfast.engine.plan import Piece

__all__ = ["Hand", "Task", "Team"]

MOST_WRITERS = 8
RESTARTS = -1  # Ray starts an actor that died anew, wherever there is room, as often as it takes


@dataclass(eq=False)
class Task:
    """A piece in an actor's hand.

    Attributes:
        key: names the attempt.
        piece: the piece.
        answer: reference to how it went; `value`: to what came of it.
        since: when it came to be the first in hand.
    """

    key: str
    piece: Piece
    answer: Any
    value: Any
    since: float


@dataclass(eq=False)
class Hand:
    """An actor.

    Attributes:
        name: for the reader.
        actor: Ray's handle.
        called: reference to its answer to `here`, by which it is known to be there; None when it is.
        asleep: when it is called again, as it could not be reached; None where it is not waited for.
        node: where it lives.
        beginning: reference to its answer to `begin`; None when it is ready.
        hello: what it said of itself.
        tasks: what it has in hand, in order.
        hung: why it was ended, if it was.
        useless: whether it gets no work.
        deaths: how often it died before it had begun.
    """

    name: str
    actor: Any
    called: Any = None
    asleep: float | None = None
    node: str = ""
    beginning: Any = None
    hello: Hello | None = None
    tasks: list[Task] = field(default_factory=list)
    hung: str = ""
    useless: bool = False
    deaths: int = 0

    @property
    def ready(self) -> bool:
        """Whether it can be given a piece."""
        return self.called is None and self.asleep is None and self.beginning is None and not self.useless

    def take(self, task: Task) -> None:
        """One more in hand."""
        self.tasks.append(task)

    def drop(self, task: Task) -> None:
        """One is done; the next one begins now."""
        self.tasks.remove(task)
        if self.tasks:
            self.tasks[0].since = time.monotonic()


class Team:
    """Actors of a run on Ray.

    Args:
        gpus: computing actors with a GPU each; 0 for `workers` computing actors on the CPU.
        workers: actors on the CPU: they prepare for those with a GPU, or compute.
        threads: with how many threads each computes on the CPU.
    """

    def __init__(self, gpus: int, workers: int, threads: int) -> None:
        import ray

        self.ray = ray
        computer: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": threads}
        self.computers = [
            self._hand(f"{'GPU' if gpus else 'worker'} {number}", Computer, computer)
            for number in range(gpus or workers)
        ]
        self.preparers = [
            self._hand(f"preparer {number}", Preparer, {"num_cpus": threads})
            for number in range(workers if gpus else 0)
        ]
        self.writers: list[Any] = []

    def _hand(self, name: str, kind: type, resources: Mapping[str, Any]) -> Hand:
        if kind is Computer:  # it waits for the disk beside the next piece
            self.ray.method(concurrency_group="disk")(Computer.finish)
            remote = self.ray.remote(concurrency_groups={"disk": 1})(Computer)
        else:
            remote = self.ray.remote(kind)
        actor = remote.options(
            max_restarts=RESTARTS,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            **resources,
        ).remote()
        return Hand(name, actor)

    def writer(self, waiting: int) -> Any:
        """A process on this node that writes; one more where results wait for those that there are."""
        if waiting >= 2 * len(self.writers) and len(self.writers) < MOST_WRITERS:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            here = NodeAffinitySchedulingStrategy(self.ray.get_runtime_context().get_node_id(), soft=False)
            remote = self.ray.remote(Writer).options(
                num_cpus=0, max_restarts=RESTARTS, scheduling_strategy=here
            )
            self.writers.append(remote.remote())
        self.writers.append(self.writers.pop(0))
        return self.writers[-1]

    def end(self) -> None:
        """End all actors at once."""
        for hand in [*self.computers, *self.preparers]:
            self.ray.kill(hand.actor)
        for writer in self.writers:
            self.ray.kill(writer)
        self.computers, self.preparers, self.writers = [], [], []

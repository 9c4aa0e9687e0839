"""What is left to do: pieces that wait or are tried again, and the search for images that end workers.

A piece that fails `max_attempts` times is bisected, where it can be, down to the images under which workers
die; the piece is then computed without them. A half that is presumed guilty, because its other half is
innocent, is divided untried; an image is blamed only for what happened while it was tried alone.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, runtime_checkable

from leamfast.engine.plan import Piece

__all__ = ["Agenda", "Divisible", "Event", "is_trial"]


@runtime_checkable
class Divisible(Piece, Protocol):
    """A piece of several images, some of which can be tried alone.

    Attributes:
        trial: whether its result is thrown away.
        images_left: positions of its images in the manifest that are not left out.
    """

    @property
    def trial(self) -> bool: ...

    @property
    def images_left(self) -> tuple[int, ...]: ...

    def only(self, positions: Sequence[int]) -> Self:
        """A trial of these images."""

    def without(self, culprits: Mapping[int, str]) -> Self:
        """The piece without these images, position -> why."""


@dataclass(frozen=True)
class Event:
    """What became of a piece.

    Attributes:
        piece: the piece.
        error: why it failed, empty where it was finished.
        final: whether it is not tried again.
        blamed: images that are left out from now on, because workers die of them.
        worker: who had it in hand.
        began, ended: when that worker had it in hand, in seconds of one clock a worker.
    """

    piece: Piece
    error: str = ""
    final: bool = True
    blamed: Mapping[int, str] = field(default_factory=dict)
    worker: str = ""
    began: float = 0.0
    ended: float = 0.0


def is_trial(piece: Piece) -> bool:
    """Whether the result of a piece is thrown away."""
    return isinstance(piece, Divisible) and piece.trial


@dataclass
class _Search:
    """The images of a piece that may be the ones.

    Attributes:
        piece: the piece.
        doubted: groups of images that are still to be tried, the last one first.
        other: the group that must be guilty if the one on trial is not.
        failed_once: images that failed alone; they are tried again, as it may have been bad luck.
        culprits: image -> why it is left out.
    """

    piece: Divisible
    doubted: list[tuple[int, ...]] = field(default_factory=list)
    other: tuple[int, ...] = ()
    failed_once: set[int] = field(default_factory=set)
    culprits: dict[int, str] = field(default_factory=dict)

    def divide(self, images: tuple[int, ...]) -> None:
        """Both halves of a group that is guilty are doubted."""
        middle = len(images) // 2
        self.other = images[middle:]
        self.doubted += [images[middle:], images[:middle]] if middle else [images]


class Agenda:
    """Pieces that wait to be computed.

    Args:
        plan: all pieces.
        max_attempts: how often a piece may fail before it is bisected, or left out.
    """

    def __init__(self, plan: Sequence[Piece], max_attempts: int) -> None:
        self.waiting = deque(plan)
        self.max_attempts = max_attempts
        self.failures: dict[int, int] = {}
        self.searches: dict[int, _Search] = {}
        self.last_chance: set[int] = set()

    def put_back(self, piece: Piece) -> None:
        """A piece that is not to blame for what happened to its worker: it is next."""
        self.waiting.appendleft(piece)

    def finished(self, piece: Piece, worker: str = "", began: float = 0.0, ended: float = 0.0) -> list[Event]:
        """A piece, or a trial, went well."""
        if not isinstance(piece, Divisible) or not piece.trial:
            return [Event(piece, worker=worker, began=began, ended=ended)]
        search = self.searches[piece.number]
        if len(search.other) > 1:
            search.divide(search.doubted.pop())
        else:
            search.other = ()
        return self._go_on(search)

    def failed(self, piece: Piece, reason: str, worker: str = "") -> list[Event]:
        """A piece, or a trial, failed once."""
        if isinstance(piece, Divisible) and piece.trial:
            search = self.searches[piece.number]
            tried, search.other = piece.images_left, ()
            if len(tried) > 1:
                search.divide(tried)
            elif tried[0] in search.failed_once:
                search.culprits[tried[0]] = reason
            else:
                search.failed_once.add(tried[0])
                search.doubted.append(tried)
            return [Event(piece, reason, final=False, worker=worker), *self._go_on(search)]
        count = self.failures[piece.number] = self.failures.get(piece.number, 0) + 1
        if count < self.max_attempts:
            self.waiting.append(piece)
            return [Event(piece, reason, final=False, worker=worker)]
        if piece.number in self.last_chance or not isinstance(piece, Divisible) or not piece.images_left:
            return [Event(piece, reason, worker=worker)]
        search = self.searches[piece.number] = _Search(piece)
        search.divide(piece.images_left)
        return [Event(piece, reason, final=False, worker=worker), *self._go_on(search)]

    def _go_on(self, search: _Search) -> list[Event]:
        """Queue the next trial, or the piece again when the search is over; an event if it found any."""
        piece = search.piece
        if search.doubted:
            self.waiting.appendleft(piece.only(search.doubted.pop()))
            return []
        del self.searches[piece.number]
        if len(search.culprits) == len(piece.images_left) > 1:  # it is not the images
            reason = next(iter(search.culprits.values()))
            return [Event(piece, f"{reason}; and so does each of its images alone")]
        if search.culprits:
            self.failures[piece.number] = 0
            rest = piece.without(search.culprits)
            self.waiting.appendleft(rest)
            return [Event(rest, final=False, blamed=search.culprits)]
        # Each image alone does no harm: it was bad luck, or it takes all of them.
        self.last_chance.add(piece.number)
        self.waiting.append(piece)
        return []

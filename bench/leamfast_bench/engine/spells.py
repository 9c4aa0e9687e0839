"""Who worked at what and when, and what follows from it: rates, gaps, shares of time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from leamfast.engine.agenda import Event

__all__ = [
    "Spell",
    "WrongWorkError",
    "busy_share",
    "check_once",
    "gaps_over_work",
    "gap_seconds",
    "spells_of",
    "steady_rate",
]


class WrongWorkError(RuntimeError):
    """What was not done right is not timed."""


@dataclass(frozen=True)
class Spell:
    """A piece in a worker's hand.

    Attributes:
        worker: who had it.
        piece: its number.
        amount: how much work it is.
        began, ended: seconds, of one clock a worker.
    """

    worker: str
    piece: int
    amount: int
    began: float
    ended: float


def spells_of(events: Iterable[Event]) -> list[Spell]:
    """What a driver tells of pieces.

    Raises:
        WrongWorkError: a piece failed, if only once.
    """
    found = []
    for event in events:
        if event.error or not event.final:
            raise WrongWorkError(f"piece {event.piece.number} failed: {event.error}")
        found.append(Spell(event.worker, event.piece.number, event.piece.amount, event.began, event.ended))
    return found


def check_once(spells: Sequence[Spell], pieces: int, workers: int) -> None:
    """All pieces of a plan were done once, and every worker did at least two.

    Raises:
        WrongWorkError: it was not so.
    """
    numbers = sorted(spell.piece for spell in spells)
    if numbers != list(range(pieces)):
        raise WrongWorkError(f"pieces {numbers} were done, where each of {pieces} is to be done once")
    shares = [len(mine) for mine in _by_worker(spells).values()]
    if len(shares) != workers or min(shares) < 2:
        raise WrongWorkError(f"workers did {shares} pieces, where {workers} must do two at least each")


def steady_rate(spells: Sequence[Spell]) -> float:
    """Work a second while all workers were at it.

    From when the last of them had finished its first piece, so that loading does not count, to when the first
    of them had finished its last. A piece lies between the ends of the one before it and its own.
    """
    by_worker = _by_worker(spells).values()
    start = max(mine[0].ended for mine in by_worker)
    stop = min(mine[-1].ended for mine in by_worker)
    if stop <= start:
        raise WrongWorkError("workers were not at work at the same time: give them more of it")
    work = 0.0
    for mine in by_worker:
        for before, spell in zip(mine, mine[1:], strict=False):
            within = min(stop, spell.ended) - max(start, before.ended)
            work += spell.amount * max(0.0, within) / (spell.ended - before.ended)
    return work / (stop - start)


def gaps_over_work(spells: Sequence[Spell]) -> float:
    """Time between the pieces of each worker, over that in the pieces before these gaps."""
    gaps, work = _gaps_and_work(spells)
    return sum(gaps) / sum(work)


def gap_seconds(spells: Sequence[Spell]) -> list[float]:
    """Each time between two pieces of a worker."""
    return _gaps_and_work(spells)[0]


def busy_share(spells: Sequence[Spell]) -> float:
    """Share of the time between their first and last piece that workers had one in hand."""
    by_worker = _by_worker(spells).values()
    busy = sum(spell.ended - spell.began for mine in by_worker for spell in mine)
    return busy / sum(mine[-1].ended - mine[0].began for mine in by_worker)


def _gaps_and_work(spells: Sequence[Spell]) -> tuple[list[float], list[float]]:
    gaps, work = [], []
    for mine in _by_worker(spells).values():
        for before, spell in zip(mine, mine[1:], strict=False):
            gaps.append(spell.began - before.ended)
            work.append(before.ended - before.began)
    return gaps, work


def _by_worker(spells: Sequence[Spell]) -> Mapping[str, list[Spell]]:
    """Each worker's, in time."""
    found: dict[str, list[Spell]] = {}
    for spell in sorted(spells, key=lambda spell: spell.began):
        found.setdefault(spell.worker, []).append(spell)
    return found

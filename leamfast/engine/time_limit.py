"""How long a worker may take over a piece before it counts as hung: far longer than others took."""

from statistics import median

from leamfast.engine.plan import Piece

__all__ = ["TimeLimit"]

FIRST = 1800.0
"""Seconds for a piece while none is finished."""

FLOOR = 600.0
FACTOR = 10.0
RELIEF = 4.0
"""How much more a piece is given after it was cut off: others may have been cheap, for example kept."""

REMEMBERED = 200


class TimeLimit:
    """The limit of a piece, from the measured speed of others.

    Args:
        seconds: the same limit for every piece in place of a measured one.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self.paces: list[float] = []
        self.cut: dict[int, int] = {}

    def learn(self, piece: Piece, seconds: float) -> None:
        """A piece was finished in so many seconds."""
        self.paces = [*self.paces[-REMEMBERED:], seconds / max(1, piece.amount)]

    def exceeded(self, piece: Piece) -> None:
        """A piece was cut off at its limit."""
        self.cut[piece.number] = self.cut.get(piece.number, 0) + 1

    def of(self, piece: Piece) -> float:
        """Seconds after which whoever has this piece in hand is ended."""
        if self.seconds is not None:
            return self.seconds
        relief = RELIEF ** self.cut.get(piece.number, 0)
        if not self.paces:
            return FIRST * relief
        return max(FLOOR, FACTOR * median(self.paces) * piece.amount) * relief

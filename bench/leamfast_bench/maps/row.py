"""A row: one way to make the maps of a case, which shows what it computes to whoever looks."""

from collections.abc import Callable
from dataclasses import dataclass

from leamfast import RequestError
from leamfast_bench.maps.case import Case

__all__ = ["Call", "Row", "See", "reason", "unseen"]

INSTALL = "pip install 'leamfast[bench]', and grad-cam with --no-deps"

See = Callable[..., None]
"""`see(tap, map=...)`, `see(tap, act=..., grad=...)`: a call shows what it has computed of a tap."""

Call = Callable[[See], object]
"""Computes maps and returns them as its user gets them."""


@dataclass(frozen=True)
class Row:
    """One way to make the maps of a case.

    Attributes:
        name: for people.
        group: what kind of row it is.
        make: case -> what is timed; a RequestError or an ImportError says why it cannot be had.
        checked: which of its first calls are compared with float64: compiled code may be right at first only.
        precision: of its arithmetic, which decides how far it may be off.
        taps: how many of the taps it shows; None: all.
    """

    name: str
    group: str
    make: Callable[[Case], Call]
    checked: tuple[int, ...] = (1,)
    precision: str = "fp32"
    taps: int | None = None


def unseen(tap: str, **found: object) -> None:
    """What a call is given where nobody looks at what it shows."""


def reason(exc: Exception) -> str:
    """Why there is nothing to measure, in a line."""
    if isinstance(exc, RequestError):
        return str(exc)
    if isinstance(exc, ImportError):
        return f"{exc}: {INSTALL}"
    return f"failed: {type(exc).__name__}: {exc}".splitlines()[0]

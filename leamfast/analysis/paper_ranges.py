"""The paper's ranges of BC beside ours, and which definitions of a pair reach them.

The paper gives 0.32 to 0.57 for the same and 0.04 to 0.13 for different identities, without saying whether
two maps of the same identity differ in the image, in the reference or in both, whether the maps were cut at
a threshold, and on what grid they were compared. So every kind, threshold and prior is held against them.

Reference: arXiv 2509.17457.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from leamfast.analysis.similarity import SAME, SimilarityRow

__all__ = ["DIFFERENT_RANGE", "SAME_RANGE", "PaperRow", "Reached", "paper_rows", "reached"]

SAME_RANGE = (0.32, 0.57)
DIFFERENT_RANGE = (0.04, 0.13)
DIFFERENT = ("D", "identity")
"""Kinds whose two maps are of two people; `cross` pairs are of one image and two models, which the paper
does not compare."""


@dataclass(frozen=True)
class PaperRow:
    """A mean of ours beside the range that the paper gives for such pairs.

    Attributes:
        mean, low, high, n: of BC, as in similarity.csv.
        paper: `same` or `different`, whose range it is held against.
        paper_low, paper_high: the range.
        mean_is: `below`, `inside` or `above` the range.
        interval_is: `inside` or `outside` where all of the interval is, `across` a limit, or `unknown`.
    """

    model: str
    map: str
    kind: str
    threshold: int
    prior: str
    mean: float
    low: float
    high: float
    n: int
    paper: str
    paper_low: float
    paper_high: float
    mean_is: str
    interval_is: str


@dataclass(frozen=True)
class Reached:
    """A definition that reaches the range of the same, and whether D of the same cut reaches its own.

    Attributes:
        kind, threshold, prior: what makes the definition.
        mean: of the pairs of the same.
        different: whether the mean of D lies in the range of different identities; None where there is no D.
    """

    kind: str
    threshold: int
    prior: str
    mean: float
    different: bool | None


def paper_rows(rows: Iterable[SimilarityRow]) -> Iterator[PaperRow]:
    """Rows of BC beside the paper's ranges, for kinds A, B, C, D and identity."""
    for row in rows:
        if row.measure != "bc" or row.n == 0 or row.kind not in (*SAME, *DIFFERENT):
            continue
        paper, (low, high) = ("same", SAME_RANGE) if row.kind in SAME else ("different", DIFFERENT_RANGE)
        yield PaperRow(
            row.model, row.map, row.kind, row.threshold, row.prior, row.mean, row.low, row.high, row.n,
            paper, low, high, _mean_is(row.mean, low, high), _interval_is(row, low, high),
        )  # fmt: skip


def reached(rows: Iterable[PaperRow]) -> list[Reached]:
    """Definitions whose mean lies in the paper's range of the same, of the rows of one model and map."""
    rows = list(rows)
    different = {(row.threshold, row.prior): row.mean_is == "inside" for row in rows if row.kind == "D"}
    return [
        Reached(row.kind, row.threshold, row.prior, row.mean, different.get((row.threshold, row.prior)))
        for row in rows
        if row.paper == "same" and row.mean_is == "inside"
    ]


def _mean_is(mean: float, low: float, high: float) -> str:
    return "below" if mean < low else "above" if mean > high else "inside"


def _interval_is(row: SimilarityRow, low: float, high: float) -> str:
    if not row.low <= row.high:
        return "unknown"
    if low <= row.low and row.high <= high:
        return "inside"
    return "outside" if row.high < low or row.low > high else "across"

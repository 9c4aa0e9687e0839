"""One sentence for each model and map: is it the person's, the position's, or nobody's.

The rule, at the smallest percent and the first fill, on the source model itself. Differences are over the
(image, reference) pairs that have both drops, intervals 95%, by resampling identities.

    chance         the larger drop of `random` (scattered pixels) and `shifted` (the map's own shape moved)
    prior          the larger drop of `other-identity` (another person's map) and `population` (the mean
                   map of all others)
    specific part  (own - prior) / (own - chance), its interval from the same draws of identities, with prior
                   and chance chosen once, by the means of the whole sample

1. `not tested`: the map has no drop, one of the four controls none, or a difference no interval, as with a
   single identity.
2. `no better than random`: the intervals of own - random and of own - shifted do not both lie above 0. The
   sentence says which of the two it fails: a map may cost more than its own shape moved at random and still
   less than scattered pixels.
3. `mostly position prior`: the specific part is below `HALF`, and so is its whole interval, or the intervals
   of own - other-identity and of own - population do not both lie above 0.
4. `person-specific`: the specific part and its whole interval are at least `HALF`, and the intervals of
   own - other-identity and of own - population both lie above 0.
5. `undecided`: all else. The sentence says why: the interval of the part holds `HALF`, or one of the
   differences is not shown to lie above 0.

Where pairs of maps were compared, BC with the position prior removed stands beside: it says the same of a
person-specific map if the interval of same - other person lies above 0, and of a position prior if not. It
decides nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

from leamfast.analysis.specificity import COMPARED, SpecificityRow

__all__ = ["FEWEST_PEOPLE", "HALF", "SpecificityVerdict", "specificity_verdicts"]

FEWEST_PEOPLE = 10
"""Below it a verdict is marked: resampling so few identities makes intervals that are too narrow.

Of a mean of P independent values, 95% bootstrap intervals are narrower than those of Student's t by
sqrt((P - 1) / P) * 1.96 / t: by 37% with 5 and by 18% with 10.
"""

HALF = 0.5
"""Of what a map gains over chance, the part that must not be the position prior's for it to be called the
person's: the larger part. A convention; the part itself stands in the table."""

WHOLE = 0.95
"""Of the pixels asked for: a support with fewer is mentioned, as scattered pixels are all of them."""

NAMED = {
    "random": "scattered pixels",
    "shifted": "its own shape moved at random",
    "other-identity": "another person's map",
    "population": "the mean map of all others",
}


@dataclass(frozen=True)
class SpecificityVerdict:
    """What the drops say of one model and map.

    Attributes:
        verdict: `person-specific`, `mostly position prior`, `no better than random`, `undecided` or
            `not tested`.
        sentence: the same in words, with the numbers.
    """

    model: str
    map: str
    threshold: float
    fill: str
    verdict: str
    sentence: str


@dataclass(frozen=True)
class _Against:
    """A control: its drop, and own - control with its interval."""

    control: str
    drop: float
    minus: float
    low: float
    high: float

    @property
    def words(self) -> str:
        return NAMED[self.control]

    @property
    def known(self) -> bool:
        return all(map(isfinite, (self.drop, self.minus, self.low, self.high)))

    @property
    def compared(self) -> str:
        """What the map costs beside it, in words."""
        if self.low > 0:
            return f"costs more than {self.words}"
        how = "costs less" if self.high < 0 else "is not shown to cost more"
        return f"{how} than {self.words}"

    def __str__(self) -> str:
        minus = f"{self.minus:.3f} [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.control} {self.drop:.3f}, own - {self.control} {minus}"


def specificity_verdicts(rows: Iterable[SpecificityRow]) -> list[SpecificityVerdict]:
    """A verdict for each model and map, in the order of the rows.

    Args:
        rows: of specificity.csv; of each model and map those of the smallest percent decide, and of them the
            first, as fills stand in the order in which they were asked for.
    """
    maps: dict[tuple[str, str], list[SpecificityRow]] = {}
    for row in rows:
        maps.setdefault((row.model, row.map), []).append(row)
    return [_verdict(min(group, key=lambda row: row.threshold)) for group in maps.values()]


def _verdict(row: SpecificityRow) -> SpecificityVerdict:
    against = _against(row)
    reason = _untested(row, against)
    if reason:
        verdict, clauses = "not tested", [reason]
    else:
        verdict, said = _decided(row, against)
        clauses = [
            f"{verdict}: {said}",
            f"drop {row.drop:.3f} [{row.drop_low:.3f}, {row.drop_high:.3f}] over {row.n:,} pairs of "
            f"{row.people:,} people",
            *map(str, against),
            _kept(row),
            _support(row),
            _bc(row, verdict),
        ]
        if row.people < FEWEST_PEOPLE:
            clauses.append(f"only {row.people} people, under {FEWEST_PEOPLE}: intervals are too narrow")
    sentence = "; ".join(filter(None, clauses))
    return SpecificityVerdict(
        row.model, row.map, row.threshold, row.fill, verdict,
        f"{row.model} {row.map} at {row.threshold:g}% {row.fill}: {sentence}.",
    )  # fmt: skip


def _against(row: SpecificityRow) -> list[_Against]:
    found = []
    for control in COMPARED:
        name = control.replace("-", "_")
        minus = "specificity" if control == "other-identity" else f"minus_{name}"
        limits = (getattr(row, f"{minus}{end}") for end in ("", "_low", "_high"))
        found.append(_Against(control, getattr(row, name), *limits))
    return found


def _untested(row: SpecificityRow, against: Sequence[_Against]) -> str:
    """Why there can be no verdict; empty where there can."""
    if not isfinite(row.drop):
        return "not tested, no image has a drop of this map"
    missing = [one.control for one in against if not isfinite(one.drop)]
    if missing:
        return f"not tested, there is no drop of the control {', '.join(missing)}"
    if row.people < 2:
        return "not tested, there is only 1 person, who says nothing of others"
    unknown = [one.control for one in against if not one.known]
    if unknown:
        return f"not tested, own - {', '.join(unknown)} has no interval"
    return ""


def _decided(row: SpecificityRow, against: Sequence[_Against]) -> tuple[str, str]:
    random, shifted, other, population = against
    if random.low <= 0 or shifted.low <= 0:
        better, worse = sorted((random, shifted), key=lambda one: one.low <= 0)
        link = "but" if better.low > 0 else "and"
        return "no better than random", f"it {better.compared} {link} {worse.compared}"
    low, high = row.specific_part_low, row.specific_part_high
    interval = f" [{low:.0%}, {high:.0%}]" if isfinite(low) and isfinite(high) else ""
    part = f"{row.specific_part:.0%}{interval} of what it gains over chance is not the position prior's"
    failed = [one for one in (other, population) if one.low <= 0]
    if row.specific_part < HALF and (high < HALF or failed):
        gained = f"only {part}" if row.specific_part > 0 else "no more than the position prior does"
        return "mostly position prior", f"it costs more than chance, but {gained}"
    if row.specific_part >= HALF and low >= HALF and not failed:
        return "person-specific", f"it costs more than chance and than the prior, {part}"
    doubts = [f"it {one.compared}" for one in failed]
    if not interval:
        doubts.append("this part has no interval")
    elif not row.specific_part >= HALF or low < HALF:
        doubts.append("the interval of this part holds one half")
    return "undecided", f"it costs more than chance, {part}, but {' and '.join(doubts)}"


def _support(row: SpecificityRow) -> str:
    if not row.support < WHOLE:
        return ""
    return f"its support has only {row.support:.0%} of the pixels asked for, scattered pixels all of them"


def _kept(row: SpecificityRow) -> str:
    # A control has a drop only where the map has one, so that its mean is over the pairs that have both.
    paired = row.other_identity + row.specificity
    if not (row.drop_low > 0 and paired > 0):  # of a drop that may be 0 there are no parts
        return ""
    return f"another person's map keeps {row.other_identity / paired:.0%} of the drop"


def _bc(row: SpecificityRow, verdict: str) -> str:
    if not isfinite(row.bc_difference):
        return ""
    numbers = (
        f"with the position prior removed BC is {row.bc_same:.3f} within a person and {row.bc_other:.3f} "
        f"between two, difference {row.bc_difference:.3f}"
    )
    if not isfinite(row.bc_difference_low):
        return f"{numbers}, without an interval"
    numbers += f" [{row.bc_difference_low:.3f}, {row.bc_difference_high:.3f}]"
    apart = row.bc_difference_low > 0
    if verdict == "person-specific":
        return f"{numbers}: BC {'says so too' if apart else 'does not say so'}"
    if verdict == "mostly position prior":
        return f"{numbers}: BC {'does not say so' if apart else 'says so too'}"
    return numbers

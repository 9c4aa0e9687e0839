"""One sentence for each model and map: what the numbers of similarity.csv support, and what they do not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan

from leamfast.analysis.paper_ranges import DIFFERENT_RANGE, SAME_RANGE, paper_rows, reached
from leamfast.analysis.similarity import SimilarityRow

__all__ = ["Verdict", "verdicts"]

THRESHOLD = 100
"""Percent at which the sentence is made: whole maps, which depend on no cut."""

NARROW = 1
"""Percent at which numbers stand beside: the smallest support."""

PRIOR = "kept"
"""The maps as they are; what removing the position prior changes is said beside."""

FEWEST_PEOPLE = 20
"""Below it, intervals that resample so few clusters are too narrow and nothing is concluded.

Cameron, Gelbach and Miller (2008) put the trouble at 5 to 30 clusters. Simulated with effects of identity and
image and four images each, 95% intervals of C and D cover 0.89 and 0.88 with 8 people, 0.93 and 0.90 with 20,
0.94 and 0.92 with 40; that of their difference, on which the sentence stands, 0.98, 0.96 and 0.96.
"""

LEVEL = 0.05
"""Of the permutation test: the counterpart of the 95% intervals."""

NAMED_AUC = ((0.56, "hardly"), (0.64, "slightly"), (0.71, "moderately"))
"""Below which AUC the two distributions come apart how well; above the last, clearly.

Cohen's small, medium and large effects, d of 0.2, 0.5 and 0.8, as AUC = Phi(d / sqrt(2)).
"""

SMALL_PART = 0.25
"""Of the way from two people (D) to two references of one image (A): below it, the person explains little of
what makes two maps alike. A convention: a quarter."""

LISTED = 3
"""Definitions that are named where more reach the paper's range."""


@dataclass(frozen=True)
class Verdict:
    """What the numbers say of one model and map.

    Attributes:
        supported: `more alike`, `no difference shown`, `less alike`, or `nothing` where it cannot be said.
        sentence: the same in words, with the numbers.
    """

    model: str
    map: str
    supported: str
    sentence: str


def verdicts(rows: Iterable[SimilarityRow]) -> list[Verdict]:
    """A verdict for each model and map, in the order of the rows."""
    groups: dict[tuple[str, str], list[SimilarityRow]] = {}
    for row in rows:
        groups.setdefault((row.model, row.map), []).append(row)
    return [_verdict(model, name, group) for (model, name), group in groups.items()]


def _verdict(model: str, name: str, rows: Sequence[SimilarityRow]) -> Verdict:
    kinds = _of_bc(rows, PRIOR)
    supported, main = _of_people(kinds)
    clauses = [main]
    if supported != "nothing":
        clauses.append(_prior_removed(_of_bc(rows, "removed")))
        clauses.append(_beside_references(kinds))
    clauses.append(_at_narrow(_of_bc(rows, PRIOR, NARROW)))
    clauses.append(_references_missing(kinds))
    clauses.append(_paper(rows))
    sentence = "; ".join(filter(None, clauses)) + "."
    return Verdict(model, name, supported, f"{model} {name}: {sentence}")


def _of_bc(rows: Sequence[SimilarityRow], prior: str, threshold: int = THRESHOLD) -> dict[str, SimilarityRow]:
    return {
        row.kind: row
        for row in rows
        if (row.threshold, row.prior, row.measure, row.other_model) == (threshold, prior, "bc", "") and row.n
    }


def _of_people(kinds: dict[str, SimilarityRow]) -> tuple[str, str]:
    """What pairs C against D support, and the clause that says so."""
    absent = [kind for kind in "CD" if kind not in kinds]
    if absent:
        return "nothing", (
            f"nothing can be said of persons, there are no pairs of kind {' or '.join(absent)} of whole maps "
            "(C needs two images of one identity, D two identities, and both to have been compared)"
        )
    same, different = kinds["C"], kinds["D"]
    numbers = f"BC C {_spread(same)} against D {_spread(different)}, n {same.n:,} and {different.n:,}"
    people = min(same.people, different.people)
    if people < FEWEST_PEOPLE:
        return "nothing", (
            f"too few people to conclude anything ({people} where {FEWEST_PEOPLE} are needed; {numbers}, "
            f"difference {same.difference:.3f}, AUC {same.auc:.2f})"
        )
    if not same.difference_low <= same.difference_high:
        return "nothing", f"nothing can be said of persons, the difference has no interval ({numbers})"
    numbers += (
        f", difference {same.difference:.3f} [{same.difference_low:.3f}, {same.difference_high:.3f}], "
        f"AUC {same.auc:.2f} [{same.auc_low:.2f}, {same.auc_high:.2f}], d {same.d:.2f}, "
        + ("no p, pairs D are too thin a sample" if isnan(same.p) else f"p {same.p:.3f}")
    )
    # Without a p-value the interval decides: it covers what it should with FEWEST_PEOPLE.
    if same.difference_low > 0 and not same.p > LEVEL:
        apart = _apart(same.auc)
        overlap = " and the intervals of the two means overlap" if same.low <= different.high else ""
        return "more alike", (
            "maps of one person resemble each other more than those of two people, single pairs "
            f"{apart} come apart{overlap} ({numbers})"
        )
    if same.difference_high < 0:
        return "less alike", (
            "maps of one person resemble each other less than those of two people, which no person-specific "
            f"map would do ({numbers})"
        )
    reason = "the interval of the difference holds 0"
    if same.difference_low > 0:
        reason = f"the interval of the difference lies above 0 but the permutation test has p over {LEVEL}"
    return "no difference shown", (
        f"no difference between pairs of one person and of two is shown, {reason} ({numbers})"
    )


def _prior_removed(kinds: dict[str, SimilarityRow]) -> str:
    if "C" not in kinds or "D" not in kinds:
        return "with the position prior removed nothing was compared"
    same = kinds["C"]
    numbers = f"{same.difference:.3f} [{same.difference_low:.3f}, {same.difference_high:.3f}]"
    if min(same.people, kinds["D"].people) < FEWEST_PEOPLE:
        return "with the position prior removed too few people are left"
    if not same.difference_low <= same.difference_high:
        return "with the position prior removed the difference has no interval"
    if same.difference_low > 0:
        return f"with the position prior removed a difference stays ({numbers})"
    if same.difference_high < 0:
        return f"with the position prior removed it turns round ({numbers})"
    return f"with the position prior removed none is shown ({numbers})"


def _beside_references(kinds: dict[str, SimilarityRow]) -> str:
    """How far from two people to two references of one image the maps of one person are."""
    if not {"A", "C", "D"} <= kinds.keys():
        return ""
    one, same, different = kinds["A"].mean, kinds["C"].mean, kinds["D"].mean
    beside = f"two references of one image have {_spread(kinds['A'])} (A)"
    if one <= different:
        return f"{beside}, no more than two people: the map depends on the reference as much as on the person"
    part = (same - different) / (one - different)
    if part < SMALL_PART:
        return (
            f"the difference is small beside that to two references of one image, {_spread(kinds['A'])} (A)"
        )
    if part >= 1:
        return f"{beside}, no more than two images of one person"
    return f"{beside}, and C is {part:.0%} of the way from D to A"


def _at_narrow(kinds: dict[str, SimilarityRow]) -> str:
    """How C and D differ where maps are cut to their smallest supports, in numbers alone."""
    if not {"C", "D"} <= kinds.keys():
        return ""
    same, different = kinds["C"], kinds["D"]
    said = (
        f"at {NARROW}% C {_spread(same)} and D {_spread(different)} differ by {same.difference:.3f} "
        f"(AUC {same.auc:.2f})"
    )
    return said if "A" not in kinds else f"{said}, beside {_spread(kinds['A'])} of two references (A)"


def _apart(area: float) -> str:
    """How well two distributions of such an AUC come apart."""
    word = next((word for limit, word in NAMED_AUC if max(area, 1 - area) < limit), "clearly")
    return word if area >= 0.5 or word == NAMED_AUC[0][1] else f"{word}, the other way round,"


def _references_missing(kinds: dict[str, SimilarityRow]) -> str:
    absent = [kind for kind in "AB" if kind not in kinds]
    if not absent:
        return ""
    return f"kind {' and '.join(absent)} missing: a run with --references each has them"


def _paper(rows: Sequence[SimilarityRow]) -> str:
    beside = list(paper_rows(rows))
    if not beside:
        return ""
    same, different = ("{:.2f}-{:.2f}".format(*limits) for limits in (SAME_RANGE, DIFFERENT_RANGE))
    found = reached(beside)
    if not found:
        kinds = sorted({row.kind for row in beside if row.paper == "same"})
        return f"of {', '.join(kinds)} none reaches the paper's {same}" if kinds else ""
    # Those where the other range is reached too come first.
    found.sort(key=lambda definition: definition.different is not True)
    texts = [
        f"{one.kind} at {one.threshold}% with the prior {one.prior} ({one.mean:.2f}, D "
        f"{'is' if one.different else 'not known' if one.different is None else 'is not'} in {different})"
        for one in found[:LISTED]
    ]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"the paper's {same} is reached by {', '.join(texts)}{more}"


def _spread(row: SimilarityRow) -> str:
    """A mean with its interval."""
    return f"{row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]"

"""What the maps of each model cost every model: rows of `tables/transfer.csv`, the diagonal included.

Reference: arXiv 2509.17457, table 21.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from leamfast.analysis.occlusion import OcclusionRow
from leamfast.store.occlusion import OWN

__all__ = ["TransferRow", "by_control", "transfer_rows"]

Key = tuple[str, str, str, float, str]
"""Source model, evaluated model, map, threshold, fill."""


@dataclass(frozen=True)
class TransferRow:
    """One map of the source model, its support filled in the images that another model embeds.

    Attributes:
        drop, drop_low, drop_high: mean over `n` pairs of `people` identities, with its 95% interval.
        random, shifted, other_identity: drops of the controls of these names; NaN where they were not taken.
        of_source: drop / drop of the same map on its own model, the two means as they stand in the table; NaN
            where that one is not known or not positive, and where the two are not over equal numbers of pairs
            and people, as of a model that has left out images.
        specificity, specificity_low, specificity_high: drop - drop of another person's map.
    """

    source_model: str
    evaluated_model: str
    map: str
    threshold: float
    fill: str
    drop: float
    drop_low: float
    drop_high: float
    random: float
    shifted: float
    other_identity: float
    of_source: float
    specificity: float
    specificity_low: float
    specificity_high: float
    n: int
    people: int


def by_control(rows: Iterable[OcclusionRow]) -> dict[Key, dict[str, OcclusionRow]]:
    """Rows by what they are of, then by control; in the order of the rows."""
    found: dict[Key, dict[str, OcclusionRow]] = {}
    for row in rows:
        key = row.source_model, row.evaluated_model, row.map, row.threshold, row.fill
        found.setdefault(key, {})[row.control] = row
    return found


def transfer_rows(rows: Iterable[OcclusionRow]) -> list[TransferRow]:
    """The matrix of source and evaluated models.

    Args:
        rows: of all pairs of models.
    """
    found = by_control(rows)
    table = []
    for (source, evaluated, name, threshold, fill), controls in found.items():
        own, other = controls[OWN], controls.get("other-identity")
        at_home = found.get((source, source, name, threshold, fill))
        random, shifted, other_drop = (
            controls[control].drop if control in controls else np.nan
            for control in ("random", "shifted", "other-identity")
        )
        table.append(
            TransferRow(
                source,
                evaluated,
                name,
                threshold,
                fill,
                own.drop,
                own.drop_low,
                own.drop_high,
                random,
                shifted,
                other_drop,
                _of_source(own, at_home[OWN]) if at_home else np.nan,
                other.own_minus if other else np.nan,
                other.own_minus_low if other else np.nan,
                other.own_minus_high if other else np.nan,
                own.n,
                own.people,
            )  # fmt: skip
        )
    return table


def _of_source(away: OcclusionRow, home: OcclusionRow) -> float:
    alike = (away.n, away.people) == (home.n, home.people)
    return away.drop / home.drop if alike and home.drop > 0 else np.nan

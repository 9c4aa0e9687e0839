"""Whether a map points at what is a person's own: rows of `tables/specificity.csv`, and identities ranked.

    specificity = drop(own) - drop(other-identity)

on the source model itself. A map that beats random pixels is no evidence of it: on aligned faces another
person's map, and the mean map of all others, lie on the same eyes, nose and mouth.

Intervals resample the identities whose images are occluded, not those whose maps stand in for theirs: which
person was drawn for `other-identity` is not stored.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from leamfast.analysis.occlusion import OcclusionRow
from leamfast.analysis.occlusion_sums import DropSums
from leamfast.analysis.shares import ratio
from leamfast.analysis.specific_part import NO_PART, SpecificPart
from leamfast.analysis.specificity_bc import BcOfMap
from leamfast.analysis.transfer import by_control
from leamfast.store.occlusion import OWN

__all__ = ["COMPARED", "IdentityRanks", "IdentityRow", "SpecificityRow", "identity_ranks", "specificity_rows"]

COMPARED = ("random", "shifted", "other-identity", "population")
"""Controls that a map is compared with."""


@dataclass(frozen=True)
class SpecificityRow:
    """One map on its own model, at one percent with one fill; NaN where a control was not taken.

    Attributes:
        drop, drop_low, drop_high: mean over `n` pairs of `people` identities, with its 95% interval.
        random, shifted, other_identity, population: means over pairs of the controls of these names.
        specificity, specificity_low, specificity_high: own - other-identity, over the pairs that have both.
        minus_random, minus_shifted, minus_population, each with _low and _high: own - control, likewise.
        specific_part, specific_part_low, specific_part_high: (own - prior) / (own - chance), with prior the
            larger drop of other-identity and population and chance that of random and shifted: the part of
            what the map gains over chance that the position prior does not have, with its 95% interval. From
            the differences above; NaN where own is not above chance.
        bc_same, bc_other: mean BC of pairs of one identity (C) and of two (D), position prior removed, at the
            same percent; NaN where maps were not compared.
        bc_difference, bc_difference_low, bc_difference_high: same - other, both identities of D resampled.
        support: mean size of the own support, as a fraction of the pixels that the percent asks for; random
            pixels are as many as it asks for.
    """

    model: str
    map: str
    threshold: float
    fill: str
    drop: float
    drop_low: float
    drop_high: float
    random: float
    shifted: float
    other_identity: float
    population: float
    specificity: float
    specificity_low: float
    specificity_high: float
    minus_random: float
    minus_random_low: float
    minus_random_high: float
    minus_shifted: float
    minus_shifted_low: float
    minus_shifted_high: float
    minus_population: float
    minus_population_low: float
    minus_population_high: float
    specific_part: float
    specific_part_low: float
    specific_part_high: float
    bc_same: float
    bc_other: float
    bc_difference: float
    bc_difference_low: float
    bc_difference_high: float
    n: int
    people: int
    support: float


@dataclass(frozen=True)
class IdentityRow:
    """One identity and map at the smallest percent with the first fill, ranked.

    `drop` and `other_identity` are means over the identity's pairs, `specificity` their difference over the
    pairs that have both. `bc_same` is over pairs of its images, `bc_other` over pairs of one of its images
    and one of another person. `rank` 1 is the most specific; None where there is no specificity. Few pairs
    stand behind one identity: the order of close ones is noise.
    """

    model: str
    map: str
    identity: str
    images: int
    drop: float
    other_identity: float
    specificity: float
    bc_same: float
    bc_other: float
    bc_difference: float
    rank: int | None


@dataclass(frozen=True, eq=False)
class IdentityRanks:
    """The identities of one map, the most specific first: arrays, as there may be many, (n,) each."""

    model: str
    map: str
    identity: np.ndarray
    images: np.ndarray
    drop: np.ndarray
    other_identity: np.ndarray
    specificity: np.ndarray
    bc_same: np.ndarray
    bc_other: np.ndarray

    def __len__(self) -> int:
        return len(self.identity)

    def rows(self) -> Iterator[IdentityRow]:
        """As rows of a table."""
        for place in range(len(self)):
            specificity = float(self.specificity[place])
            same, other = float(self.bc_same[place]), float(self.bc_other[place])
            yield IdentityRow(
                self.model, self.map, str(self.identity[place]), int(self.images[place]),
                float(self.drop[place]), float(self.other_identity[place]), specificity,
                same, other, same - other, None if np.isnan(specificity) else place + 1,
            )  # fmt: skip


def specificity_rows(
    rows: Iterable[OcclusionRow],
    parts: Mapping[tuple[str, str, float, str], SpecificPart],
    bc: Mapping[tuple[str, str], BcOfMap] | None = None,
) -> list[SpecificityRow]:
    """Rows of every map on its own model.

    Args:
        rows: of occlusion.csv.
        parts: (model, map, threshold, fill) -> its specific part.
        bc: (model, map) -> what comparing its maps said, where they were compared.
    """
    table = []
    for (source, evaluated, name, threshold, fill), controls in by_control(rows).items():
        if source == evaluated:
            own, part = controls[OWN], parts.get((source, name, threshold, fill), NO_PART)
            table.append(
                SpecificityRow(
                    model=source,
                    map=name,
                    threshold=threshold,
                    fill=fill,
                    drop=own.drop,
                    drop_low=own.drop_low,
                    drop_high=own.drop_high,
                    **_of_controls(controls),
                    specific_part=part.part,
                    specific_part_low=part.low,
                    specific_part_high=part.high,
                    **_of_bc((bc or {}).get((source, name)), threshold),
                    n=own.n,
                    people=own.people,
                    support=own.support,
                )
            )
    return table


def _of_controls(controls: Mapping[str, OcclusionRow]) -> dict[str, float]:
    found: dict[str, float] = {}
    for control in COMPARED:
        row = controls.get(control)
        name = control.replace("-", "_")
        minus = "specificity" if control == "other-identity" else f"minus_{name}"
        found[name] = row.drop if row else np.nan
        found[minus] = row.own_minus if row else np.nan
        found[f"{minus}_low"] = row.own_minus_low if row else np.nan
        found[f"{minus}_high"] = row.own_minus_high if row else np.nan
    return found


def _of_bc(bc: BcOfMap | None, threshold: float) -> dict[str, float]:
    column = BcOfMap.column(threshold)
    values = [np.nan] * 5
    if bc is not None and column is not None:
        values = [float(a[column]) for a in (bc.same, bc.other, bc.difference, bc.low, bc.high)]
    names = ("bc_same", "bc_other", "bc_difference", "bc_difference_low", "bc_difference_high")
    return dict(zip(names, values, strict=True))


def identity_ranks(
    model: str, sums: DropSums, names: np.ndarray, bc: Mapping[tuple[str, str], BcOfMap] | None = None
) -> Iterator[IdentityRanks]:
    """Identities of some maps of a model, ranked; those without a drop are left out.

    Args:
        model: source and evaluated model.
        sums: of the maps.
        names: of the identities, (person,).
        bc: as in `specificity_rows`.

    Returns:
        One for each map; none without the control `other-identity`.
    """
    axes, drop = sums.axes, sums.drop
    if "other-identity" not in axes.controls:
        return
    other = axes.controls.index("other-identity")
    for m, name in enumerate(axes.maps):
        means = ratio(drop.total[:, m, 0, :, 0], drop.count[:, m, 0, :, 0])
        specificity = ratio(drop.difference[:, m, 0, other, 0], drop.both[:, m, 0, other, 0])
        same = apart = np.full(len(names), np.nan)
        column, compared = BcOfMap.column(axes.percents[0]), (bc or {}).get((model, name))
        if compared is not None and column is not None:
            same, apart = compared.person_same[:, column], compared.person_other[:, column]
        order = np.argsort(-specificity, kind="stable")  # NaN comes last
        order = order[np.isfinite(means[order, 0])]
        yield IdentityRanks(
            model, name, names[order], sums.images[order, m], means[order, 0], means[order, other],
            specificity[order], same[order], apart[order],
        )  # fmt: skip

"""The tables of a run's occlusion: computed first, from one pass over the stored drops, then written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.curves import AreaRow, CurveRow, CurveSums, area_family, area_rows, curve_rows
from leamfast.analysis.fills import FillRow, FillSums, fill_rows
from leamfast.analysis.groups import GroupRow, GroupSums, group_family, group_rows_of
from leamfast.analysis.multiple import adjusted
from leamfast.analysis.occlusion import OcclusionRow, occlusion_family, occlusion_rows
from leamfast.analysis.occlusion_blocks import Reduction, axes_of_maps, reduce_blocks
from leamfast.analysis.occlusion_memory import map_groups
from leamfast.analysis.occlusion_statistics import paired_statistics
from leamfast.analysis.occlusion_sums import DropSums
from leamfast.analysis.pair_draws import PairDraws
from leamfast.analysis.specific_part import SpecificPart, specific_parts
from leamfast.analysis.specificity import (
    IdentityRanks,
    IdentityRow,
    SpecificityRow,
    identity_ranks,
    specificity_rows,
)
from leamfast.analysis.specificity_bc import BcOfMap, bc_of_map
from leamfast.analysis.specificity_verdicts import SpecificityVerdict, specificity_verdicts
from leamfast.analysis.strata import Strata, group_columns, strata_of
from leamfast.analysis.tables import write_rows
from leamfast.analysis.transfer import TransferRow, transfer_rows
from leamfast.analysis.within_person import WithinRow, within_family, within_rows
from leamfast.errors import RequestError
from leamfast.store.part import PartError
from leamfast.store.results import Results, open_results
from leamfast.store.run_folder import RunFolder

__all__ = ["OcclusionTables", "check_groups", "occlusion_of", "occlusion_tables", "write_occlusion"]

Columns = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class OcclusionTables:
    """What was found of occlusion.

    Attributes:
        occlusion: every map and control on every model.
        transfer: source and evaluated models.
        specificity: every map on its own model.
        identities: identities ranked, one entry a map.
        verdicts: one sentence a model and map.
        within_person: maps of the same person; empty where none were taken.
        fills: empty where there was only one.
        groups: empty without metadata columns.
        curves, curve_areas: empty where none were taken.
    """

    occlusion: list[OcclusionRow] = field(default_factory=list)
    transfer: list[TransferRow] = field(default_factory=list)
    specificity: list[SpecificityRow] = field(default_factory=list)
    identities: list[IdentityRanks] = field(default_factory=list)
    verdicts: list[SpecificityVerdict] = field(default_factory=list)
    within_person: list[WithinRow] = field(default_factory=list)
    fills: list[FillRow] = field(default_factory=list)
    groups: list[GroupRow] = field(default_factory=list)
    curves: list[CurveRow] = field(default_factory=list)
    curve_areas: list[AreaRow] = field(default_factory=list)

    def count(self, name: str) -> int:
        """Rows of a table, by the name of its file."""
        if name == "specificity_identities":
            return sum(map(len, self.identities))
        return len(self.verdicts if name == "specificity_verdicts" else getattr(self, name))


def check_groups(root: Path, groups: Columns) -> None:
    """Raise a RequestError where groups cannot be made of these columns."""
    with open_results(root, with_pairs=False) as results:
        for columns in groups:
            strata_of(results, columns)


def occlusion_tables(root: Path, groups: Columns | None = None) -> OcclusionTables:
    """Compute the tables of a result folder's occlusion.

    Args:
        root: the result folder.
        groups: metadata columns to look at, each entry one or several to cross; None for those of
            `group_columns`.

    Raises:
        RequestError: the folder holds no run, nothing of it was occluded, a column is not there, or something
            that is stored is damaged.
    """
    with open_results(root) as results:
        found = occlusion_of(results, groups)
    if found is None:
        raise RequestError(f"nothing of {root} was occluded: run `leamfast occlude {root}`")
    return found


def occlusion_of(results: Results, groups: Columns | None = None) -> OcclusionTables | None:
    """As `occlusion_tables`, of an open run; None where nothing was occluded."""
    if not results.occluded:
        return None
    strata = [strata_of(results, names) for names in (group_columns(results) if groups is None else groups)]
    tables, resampling = OcclusionTables(), Resampling(results.identities)
    parts: dict[tuple[str, str, float, str], SpecificPart] = {}
    try:
        bc = _bc(results, resampling)
    except PartError as exc:
        raise RequestError(f"{exc}: run `leamfast compare {results.root}`") from exc
    for evaluated, source in results.occluded:
        parts |= _add_models(tables, results, evaluated, source, strata, resampling, bc)
    tables.transfer.extend(transfer_rows(tables.occlusion))
    tables.specificity.extend(specificity_rows(tables.occlusion, parts, bc))
    tables.verdicts.extend(specificity_verdicts(tables.specificity))
    return tables


def write_occlusion(root: Path, tables: OcclusionTables) -> dict[str, Path]:
    """Write the tables, name -> file; those that may be empty only where they have rows.

    An older file of a table that has none now is removed.
    """
    identities = chain.from_iterable(ranks.rows() for ranks in tables.identities)
    written = {
        "occlusion": write_rows(root, "occlusion", OcclusionRow, tables.occlusion),
        "transfer": write_rows(root, "transfer", TransferRow, tables.transfer),
        "specificity": write_rows(root, "specificity", SpecificityRow, tables.specificity),
        "specificity_identities": write_rows(root, "specificity_identities", IdentityRow, identities),
        "specificity_verdicts": write_rows(root, "specificity_verdicts", SpecificityVerdict, tables.verdicts),
    }
    kinds: dict[str, type] = {
        "within_person": WithinRow,
        "fills": FillRow,
        "groups": GroupRow,
        "curves": CurveRow,
        "curve_areas": AreaRow,
    }
    for name, kind in kinds.items():
        if tables.count(name):
            written[name] = write_rows(root, name, kind, getattr(tables, name))
        else:
            (RunFolder(root).tables / f"{name}.csv").unlink(missing_ok=True)
    return written


def _add_models(
    tables: OcclusionTables,
    results: Results,
    evaluated: str,
    source: str,
    strata: Sequence[Strata],
    resampling: Resampling,
    bc: dict[tuple[str, str], BcOfMap],
) -> dict[tuple[str, str, float, str], SpecificPart]:
    """Add what is said of one evaluated and one source model, and return the specific parts of its maps."""
    axes, side = results.occlusion_axes(evaluated, source), results.input_size(evaluated)
    person, people = resampling.person, len(resampling.people)
    names = results.text("identity/name")[resampling.people]
    at_home = evaluated == source
    of_fills = at_home and len(axes.fills) > 1
    rows: list[OcclusionRow] = []
    within: list[WithinRow] = []
    grouped: list[GroupRow] = []
    areas: list[AreaRow] = []
    parts: dict[tuple[str, str, float, str], SpecificPart] = {}
    references = results.setting(source, "references")
    for maps in map_groups(axes, people, strata, fills=of_fills):
        mine = axes_of_maps(axes, maps)
        drops = DropSums(mine, person, people)
        groups = [GroupSums(mine, one, person) for one in strata]
        fills = FillSums(mine, person, people) if of_fills else None
        curves = CurveSums(mine, person, people) if axes.steps else None
        every: list[Reduction] = [drops, *groups]
        every += [one for one in (fills, curves) if one is not None]
        reduce_blocks(results, evaluated, source, maps, every)
        found = paired_statistics(drops.drop, resampling)
        rows += occlusion_rows(evaluated, source, drops, found, side)
        if at_home:
            within += within_rows(source, drops, found, references)
            parts |= specific_parts(source, drops, resampling)
            tables.identities.extend(identity_ranks(source, drops, names, bc))
        for one in groups:
            grouped += group_rows_of(evaluated, source, one, resampling)
        if fills is not None:
            tables.fills.extend(fill_rows(source, fills, resampling))
        if curves is not None:
            tables.curves.extend(curve_rows(evaluated, source, curves, resampling))
            areas += area_rows(evaluated, source, curves, resampling)
    tables.occlusion.extend(adjusted(rows, occlusion_family))
    tables.within_person.extend(adjusted(within, within_family))
    tables.groups.extend(adjusted(grouped, group_family))
    tables.curve_areas.extend(adjusted(areas, area_family))
    return parts


def _bc(results: Results, resampling: Resampling) -> dict[tuple[str, str], BcOfMap]:
    """What comparing the maps said, of the models that were occluded by their own maps."""
    if not results.has_pairs:
        return {}
    draws = PairDraws(resampling)
    found = {}
    for evaluated, source in results.occluded:
        if evaluated == source:
            for name in results.occlusion_axes(evaluated, source).maps:
                bc = bc_of_map(results, source, name, draws)
                if bc is not None:
                    found[source, name] = bc
    return found

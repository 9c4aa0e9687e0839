"""All tables of a run: computed first, and written once they are all there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leamfast.analysis.agreement import AgreementRow, agreement_rows
from leamfast.analysis.asymmetry import AsymmetryRow, asymmetry_of_map
from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.diagnostics import Diagnostic, Findings, diagnostics
from leamfast.analysis.layers_table import layers_columns, layers_rows
from leamfast.analysis.map_health import map_health
from leamfast.analysis.occlusion_tables import OcclusionTables, occlusion_of, write_occlusion
from leamfast.analysis.off_face import OffFaceRow, off_face_of_map
from leamfast.analysis.regions import RegionRow, regions_of_map
from leamfast.analysis.shares import map_names, masks_of_models, share_sums
from leamfast.analysis.similarity_tables import SimilarityTables, similarity_of, write_similarity
from leamfast.analysis.tables import write_rows, write_table
from leamfast.errors import RequestError
from leamfast.store.results import Results, open_results

__all__ = ["Analysis", "analyze_run", "write_analysis"]


@dataclass(frozen=True)
class Analysis:
    """The tables of a run.

    Attributes:
        complete: whether all shards of the run are there.
        masks: whether there are region masks, and so tables of regions.
        parser: what made the masks; empty where the run does not say.
        unknown: regions that the parser cannot tell.
        regions, asymmetry, off_face, layers: tables of regions; `layers` lies under `layers_columns`.
        agreement: maps of one person against each other.
        diagnostics: what is known against the maps.
        similarity: tables of compared pairs; None where `leamfast compare` has not compared the maps.
        occlusion: tables of occlusion; None where `leamfast occlude` has not occluded the images.
    """

    complete: bool
    masks: bool
    parser: str
    unknown: tuple[str, ...]
    regions: list[RegionRow]
    asymmetry: list[AsymmetryRow]
    off_face: list[OffFaceRow]
    layers_columns: tuple[str, ...]
    layers: list[tuple]
    agreement: list[AgreementRow]
    diagnostics: list[Diagnostic]
    similarity: SimilarityTables | None
    occlusion: OcclusionTables | None


def analyze_run(root: Path, groups: Sequence[tuple[str, ...]] | None = None) -> Analysis:
    """Compute all tables of a result folder.

    Args:
        root: the result folder.
        groups: metadata columns by which drops are compared, as `occlusion_tables` takes them.

    Raises:
        RequestError: the folder holds no run, one without a usable image, or one that cannot be read, or a
            column is not there.
    """
    with open_results(root) as results:
        if not results.models or len(results) == 0:
            raise RequestError(f"{root} holds no usable image: its failures.csv says why")
        try:
            return _analyze(results, groups)
        except OSError as exc:
            raise RequestError(f"{root} cannot be read ({exc}): see `leamfast verify`") from exc


def _analyze(results: Results, groups: Sequence[tuple[str, ...]] | None) -> Analysis:
    resampling = Resampling(results.identities)
    masks = masks_of_models(results)
    names = [str(name) for name in results.text("region")]
    told = [name for name in names if any(name in mask.regions for mask in masks.values())]
    regions: list[RegionRow] = []
    asymmetry: list[AsymmetryRow] = []
    off_face: list[OffFaceRow] = []
    layers: list[tuple] = []
    for model, mask in masks.items():
        lines = []
        for name in map_names(results, model):
            sums = share_sums(results, model, name, mask, resampling.person)
            regions += regions_of_map(sums, resampling)
            asymmetry += asymmetry_of_map(sums, resampling)
            off_face += off_face_of_map(sums, resampling)
            lines.append((name, sums.mean_share))
        lines.append(("area", sums.mean_area))
        layers += layers_rows(model, results.thresholds, mask.regions, lines, told)
    agreement = list(agreement_rows(results, resampling))
    health = {
        (model, tap): map_health(results, model, tap)
        for model in results.models
        for tap in results.taps(model)
    }
    return Analysis(
        complete=results.complete,
        masks=bool(masks),
        parser=next(filter(None, map(results.parser, masks)), ""),
        unknown=tuple(name for name in names if masks and name not in told),
        regions=regions,
        asymmetry=asymmetry,
        off_face=off_face,
        layers_columns=layers_columns(told),
        layers=layers,
        agreement=agreement,
        diagnostics=diagnostics(results, Findings(regions, asymmetry, off_face, agreement, health)),
        similarity=similarity_of(results),
        occlusion=occlusion_of(results, groups),
    )


def write_analysis(root: Path, analysis: Analysis) -> dict[str, Path]:
    """Write the tables of a run: of regions, pairs and occlusion where there are masks, pairs and drops.

    Returns:
        Name of each table that was written -> its file.
    """
    tables: dict[str, tuple[type, list]] = {
        "agreement": (AgreementRow, analysis.agreement),
        "diagnostics": (Diagnostic, analysis.diagnostics),
    }
    if analysis.masks:
        tables |= {
            "regions": (RegionRow, analysis.regions),
            "asymmetry": (AsymmetryRow, analysis.asymmetry),
            "off_face": (OffFaceRow, analysis.off_face),
        }
    written = {name: write_rows(root, name, kind, rows) for name, (kind, rows) in tables.items()}
    if analysis.masks:
        written["layers"] = write_table(root, "layers", analysis.layers_columns, analysis.layers)
    if analysis.similarity is not None:
        written |= write_similarity(root, analysis.similarity)
    if analysis.occlusion is not None:
        written |= write_occlusion(root, analysis.occlusion)
    return written

"""`leamfast demo`: synthetic faces -> maps -> tables -> controls -> a picture, in two minutes, offline."""

import csv
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from leamfast.analysis.analyze import analyze_run, write_analysis
from leamfast.analysis.occlusion_tables import occlusion_tables, write_occlusion
from leamfast.analysis.similarity_tables import similarity_tables, write_similarity
from leamfast.cli.occlude import stop_unfinished
from leamfast.cli.output import INTERRUPTED, note, print_json, print_table
from leamfast.cli.verdicts import COLUMNS, decided, print_verdicts
from leamfast.datasets.synthetic import write_dataset
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.engine.compare_run import CompareRequest, run_compare
from leamfast.engine.occlude_request import OccludeRequest
from leamfast.engine.occlude_run import run_occlude
from leamfast.engine.progress import WorkProgress
from leamfast.errors import RequestError
from leamfast.leam.presets import preset as named_preset
from leamfast.leam.program import TARGETS
from leamfast.store.results import open_results

__all__ = ["demo"]

SHOWN = ("re", "le", "rb", "lb", "nose", "ulip", "llip", "face", "hair", "background")
THRESHOLD = "5"
PERCENTS = (1, 5)
CONTROLS = (
    "own", "random", "shifted", "other-identity", "population", "centre",
    "nearest-pose", "master-1", "master",
)  # fmt: skip
"""Of occlusion, in small: what verdicts need, the middle of the crop, and other maps of the person."""

KINDS, PAIRS = ("C", "D"), 60
"""Of compared maps, in small: what BC beside the verdicts needs, and no EMD."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")] = Path("leamfast-demo"),
    identities: Annotated[int, typer.Option(min=2, help="How many people.")] = 24,
    images: Annotated[int, typer.Option(min=2, help="Images of each.")] = 8,
    preset: Annotated[str, typer.Option(help="How maps are made: paper or faithful.")] = "paper",
    target: Annotated[
        str | None,
        typer.Option(help="loss (gradient of 1 - cos) or similarity (of cos).", show_default="the preset's"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the faces.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Show what leamfast does: render faces, compute maps of the demo model, and say what they point at.

    And whether they point at the person: maps are compared pair by pair, and pixels of each are blacked out,
    beside those of controls.
    """
    from leamfast.report.overlays import overlay_figure  # matplotlib, only here

    made = named_preset(preset)
    if target is not None:
        made = replace(made, target=target)
    if made.target not in TARGETS:
        raise RequestError(f"--target must be one of {', '.join(TARGETS)}, got {target!r}")
    if out.is_dir() and any(out.iterdir()):
        raise RequestError(f"--out {out} is not empty: remove it or choose another folder")
    faces, run = out / "faces", out / "run"
    with WorkProgress("faces", identities * images) as progress:
        write_dataset(faces, identities=identities, images=images, seed=seed, progress=progress.advance)
    report = run_batch(BatchRequest(data=faces, out=run, model=("demo",), align="none", **asdict(made)), note)
    table = write_analysis(run, analyze_run(run))["regions"]
    picture = out / "maps.png"
    with open_results(run) as results:
        first = [int((results.identities == person).nonzero()[0][0]) for person in range(min(4, identities))]
        overlay_figure(results, "demo", first, faces, picture)
    _compare(run)
    asked = OccludeRequest(out=run, percents=PERCENTS, controls=CONTROLS, seeds=1)
    drops = ",".join(map(str, PERCENTS)), ",".join(CONTROLS)
    stop_unfinished(
        run_occlude(asked, note),
        f"`leamfast occlude {run} --percents {drops[0]} --controls {drops[1]} --seeds 1`",
    )
    occluded = occlusion_tables(run)
    written = write_occlusion(run, occluded)
    columns, rows = _over_representation(table)
    if as_json:
        found = {str(row[0]): dict(zip(columns[1:], row[1:], strict=True)) for row in rows}
        print_json(
            {"out": out, "images": report.images, "identities": report.identities, **asdict(made),
             "images_per_second": report.images_per_second, "run": run, "picture": picture, "regions": table,
             "over_representation": found, "tables": written,
             "occlusion": [
                 {"map": row.map, **{column: getattr(row, column) for column in COLUMNS.values()},
                  "specificity": row.specificity, "verdict": verdict.verdict}
                 for row, verdict in decided(occluded)
             ]}
        )  # fmt: skip
        return
    print_table(columns, rows, f"Share of the top {THRESHOLD}% of pixels over share of the area (1 = chance)")
    print_verdicts(occluded)
    print_table(
        ["", ""],
        [
            ["picture", picture],
            ["maps and embeddings", run / "index.h5"],
            ["tables", table.parent],
            ["faces", faces],
        ],
    )


def _compare(run: Path) -> None:
    """Compare maps pair by pair, as `leamfast compare` does: fills the BC columns of the occlusion tables."""
    report = run_compare(CompareRequest(out=run, kinds=KINDS, pairs=PAIRS, emd_pairs=0), note)
    again = f"`leamfast compare {run} --kinds {','.join(KINDS)} --pairs {PAIRS} --emd-pairs 0`"
    if report.interrupted:
        note(f"stopped after {report.tiles} tiles; {again} goes on")
        raise typer.Exit(INTERRUPTED)
    if report.failed_tiles:
        note(f"{report.failed_tiles} tiles failed; {again} tries them again")
        raise typer.Exit(1)
    write_similarity(run, similarity_tables(run))


def _over_representation(table: Path) -> tuple[list[str], list[list[object]]]:
    """Over-representation of the facial regions in each map's support, one line a map."""
    lines: dict[str, dict[str, float]] = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["threshold"] == THRESHOLD:
                lines.setdefault(row["map"], {})[row["region"]] = float(row["over_representation"])
    return ["map", *SHOWN], [[name, *(values[region] for region in SHOWN)] for name, values in lines.items()]

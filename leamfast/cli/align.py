"""`leamfast align`: aligned crops of a data set, by themselves."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer

from leamfast.cli.output import INTERRUPTED, note, print_json
from leamfast.datasets.formats import AUTO, FORMATS
from leamfast.engine.align_run import AlignReport, AlignRequest, run_align

__all__ = ["align"]


def align(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder of identity folders, manifest (CSV, Parquet), or a data set in another format.",
            metavar="DATA",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the crops, new or empty.")],
    detector: Annotated[str, typer.Option(help="Face detector: retinaface=FILE, dlib or dlib=FILE.")],
    format: Annotated[str, typer.Option(help=f"{', '.join(FORMATS)}, or auto: by what DATA is.")] = AUTO,
    limit_identities: Annotated[
        int | None, typer.Option(help="At most so many identities, drawn with --seed.", show_default="all")
    ] = None,
    images_per_identity: Annotated[
        int | None, typer.Option(help="At most so many images of each, drawn likewise.", show_default="all")
    ] = None,
    min_images: Annotated[int, typer.Option(help="Leave out identities with fewer images.")] = 1,
    align: Annotated[
        str, typer.Option(help="arcface (by five points) or paper (by 68: --detector dlib).")
    ] = "arcface",
    faces: Annotated[
        str, typer.Option(help="one: a picture of several faces is left out; largest: its largest is used.")
    ] = "one",
    size: Annotated[int, typer.Option(help="Side of the crops in pixels.")] = 112,
    workers: Annotated[int, typer.Option(help="Worker processes; 0 computes in this one.")] = 0,
    threads: Annotated[
        int | None, typer.Option(help="Threads a process computes with.", show_default="cores / workers")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N, for the detector.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed; the same one draws the same.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Find and align the face of every image: crops as PNG files, and their manifest.

    `leamfast batch OUT --align none` takes them. OUT/manifest.csv names the image
    that each crop was cut from, OUT/failures.csv says why the others have none. A
    run that was stopped or killed goes on with --resume.
    """
    options = {name: context.params[name] for name in (field.name for field in fields(AlignRequest))}
    _finish(run_align(AlignRequest(**options), note), as_json)


def _finish(report: AlignReport, as_json: bool) -> None:
    """Say how a run went, and leave with status 1 where shards failed, 130 where it was stopped."""
    if as_json:
        print_json(asdict(report))
    else:
        kept = f", {report.skipped} shards were finished before" if report.skipped else ""
        note(
            f"{report.images} crops of {report.identities} people in {report.out} "
            f"({report.seconds:.1f} s, {report.images_per_second:.1f} images/s{kept})"
        )
        if report.failures and not report.interrupted:
            stages = ", ".join(f"{number} {stage}" for stage, number in report.left_out.items())
            note(f"{report.failures} rows in {report.out / 'failures.csv'} say what was left out: {stages}")
    if report.interrupted:
        note("stopped; go on with --resume")
        raise typer.Exit(INTERRUPTED)
    if report.failed_shards:
        note(f"{report.failed_shards} shards failed; --resume tries them again")
        raise typer.Exit(1)
    if not report.images:
        note(f"no image has a crop: {report.out / 'manifest.csv'} lists none, and batch will not take it")

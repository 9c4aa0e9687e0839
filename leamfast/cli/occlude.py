"""`leamfast occlude`: fill what maps point at, see how far the cosine falls, and what controls make of it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from leamfast.analysis.occlusion_tables import (
    OcclusionTables,
    check_groups,
    occlusion_tables,
    write_occlusion,
)
from leamfast.analysis.specificity import COMPARED
from leamfast.cli.output import INTERRUPTED, note, print_json
from leamfast.cli.verdicts import print_transfer, print_verdicts
from leamfast.engine.occlude_request import OccludeRequest
from leamfast.engine.occlude_run import OccludeReport, run_occlude
from leamfast.errors import RequestError
from leamfast.store.occlusion import CONTROLS

__all__ = ["columns_of", "occlude", "stop_unfinished"]

ALL = "all"


def occlude(
    out: Annotated[Path, typer.Argument(help="Result folder of `leamfast batch`.", metavar="DIR")],
    percents: Annotated[
        str,
        typer.Option(
            help="Parts of the area that are filled, in percent, separated by commas; the smallest is that "
            "of the verdicts."
        ),
    ] = "1,2,5,10,20",
    fills: Annotated[
        str,
        typer.Option(
            help="What fills them: black, mean, blur, noise, inpaint, separated by commas; the first "
            "is that of the verdicts."
        ),
    ] = "black",
    controls: Annotated[
        str,
        typer.Option(
            help="What stands in for a map, separated by commas: random, random-block-2, random-block-4, "
            "random-block-8, shifted, shifted-on-face, other-identity, population, centre, nearest-pose, "
            "master-1, master-2, master-4, master-8, master. Verdicts need random, shifted, other-identity "
            "and population."
        ),
    ] = ALL,
    seeds: Annotated[int, typer.Option(help="Draws of each control that is drawn at random.")] = 3,
    curves: Annotated[
        bool, typer.Option("--curves", help="Deletion and insertion curves over the whole area too.")
    ] = False,
    groups: Annotated[
        list[str] | None,
        typer.Option(
            help="Metadata column whose values are compared, or several crossed: sex or sex,age. Repeat it.",
            show_default="columns of people with 2 to 12 values",
        ),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(help="Models whose maps are occluded, separated by commas.", show_default="all"),
    ] = None,
    evaluated: Annotated[
        str | None,
        typer.Option(
            help="Models that see the occluded images, separated by commas.",
            show_default="all that can be loaded",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The data set, where it lies elsewhere now.", show_default="the run's")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Where a model of the run lies now: NAME=WEIGHTS or NAME:=SPEC. Repeat it."),
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, eager, torchscript or inductor.")] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(help="Occluded images embedded together.", show_default="16, on CUDA 512"),
    ] = None,
    workers: Annotated[int, typer.Option(help="Worker processes; 0 computes in this one.")] = 0,
    threads: Annotated[
        int | None, typer.Option(help="Threads a process computes with.", show_default="cores / workers")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow models that are code.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Throw away what was occluded with other options.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Is a map this person's, or any face's? Fill what it points at, beside controls that ask the same.

    Fills the support of each map, and of each control in its place, embeds these images with every model of
    the run that can be loaded, and says how far the cosine to other images of the person falls. A map that
    costs no more than another person's map is a position prior, however far it beats random pixels.

    Writes occlusion/*.h5, the groups `occlusion` of index.h5, and tables: occlusion.csv (every control),
    transfer.csv (maps of one model, seen by another), specificity.csv, specificity_identities.csv and
    specificity_verdicts.csv (a sentence for each model and map), within_person.csv, groups.csv, with several
    fills fills.csv, with --curves curves.csv and curve_areas.csv. Fewer percents, seeds and controls take
    less time. The same command goes on where it was interrupted; `leamfast analyze` makes the tables again.

    The BC columns of specificity.csv need `leamfast compare DIR` first; where that comes later, `leamfast
    analyze DIR` fills them.
    """
    request = OccludeRequest(
        out=out,
        percents=_percents(percents),
        fills=_names(fills),
        controls=CONTROLS if controls == ALL else _names(controls),
        seeds=seeds,
        curves=curves,
        evaluated=None if evaluated is None else _names(evaluated),
        sources=None if sources is None else _names(sources),
        data=data,
        model=tuple(model or ()),
        backend=backend,
        batch_size=batch_size,
        workers=workers,
        threads=threads,
        device=device,
        trust_code=trust_code,
        overwrite=overwrite,
    )
    columns = columns_of(groups)
    check_groups(out, columns or ())
    report = run_occlude(request, note)
    if as_json and (report.interrupted or report.failed_blocks):
        print_json({**asdict(report), "tables": {}, "verdicts": []})
    stop_unfinished(report, "the same command")
    found = occlusion_tables(out, columns)
    written = write_occlusion(out, found)
    if as_json:
        verdicts = [asdict(verdict) for verdict in found.verdicts]
        print_json({**asdict(report), "tables": written, "verdicts": verdicts})
    else:
        _say(report, found, written)


def columns_of(groups: list[str] | None) -> list[tuple[str, ...]] | None:
    """Columns of `--groups`, each entry one or several to cross; None where it was not given."""
    return None if groups is None else [_names(group) for group in groups]


def stop_unfinished(report: OccludeReport, again: str) -> None:
    """End the command where the pass was interrupted (status 130), or blocks of it failed (status 1).

    Args:
        report: of the pass.
        again: the command that goes on with it.
    """
    if report.interrupted:
        note(f"stopped after {report.blocks} blocks of images; {again} goes on")
        raise typer.Exit(INTERRUPTED)
    if report.failed_blocks:
        note(f"{report.failed_blocks} blocks of images failed and no table is made; {again} tries them again")
        raise typer.Exit(1)


def _say(report: OccludeReport, found: OcclusionTables, written: dict[str, Path]) -> None:
    if not report.complete:
        note(f"{report.out} is not complete: only finished shards are occluded")
    before = f", {report.skipped} blocks were finished before" if report.skipped else ""
    note(
        f"{report.images} images, maps of {', '.join(report.sources)} seen by {', '.join(report.evaluated)} "
        f"({report.seconds:.1f} s{before})"
    )
    for reason, number in report.left_out.items():
        note(f"{number} images are left out: {reason}")
    for name, path in written.items():
        note(f"{found.count(name)} rows in {path}")
    print_verdicts(found)
    print_transfer(found)
    missing = [control for control in COMPARED if control not in report.controls]
    if found.verdicts and missing:
        note(f"verdicts need the controls {', '.join(missing)} too")
    elif found.verdicts:
        note(f"what each verdict rests on, in a sentence: {written['specificity_verdicts']}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _percents(text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({float(percent) for percent in _names(text)}))
    except ValueError as exc:
        raise RequestError(f"--percents must be numbers separated by commas, got {text!r}") from exc

"""`leamfast compare`: maps of a finished run against each other, and what that says of persons."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from leamfast.analysis.similarity_tables import SimilarityTables, similarity_tables, write_similarity
from leamfast.cli.output import INTERRUPTED, note, print_json
from leamfast.engine.compare_run import CompareReport, CompareRequest, run_compare
from leamfast.errors import RequestError
from leamfast.store.pairs import KINDS

__all__ = ["compare"]


def compare(
    out: Annotated[Path, typer.Argument(help="Result folder of `leamfast batch`.", metavar="DIR")],
    kinds: Annotated[
        str,
        typer.Option(
            help="Which pairs, separated by commas: A (same image, two references), B (M(a|b) with M(b|a)), "
            "C (same identity), D (different identities), identity (means of two identities), "
            "cross (two models)."
        ),
    ] = ",".join(KINDS),
    pairs: Annotated[
        str,
        typer.Option(
            help="Pairs of each kind and map, drawn with --seed so that no identity dominates; or all. Every "
            "two images of one identity are compared all the same."
        ),
    ] = "20000",
    emd_pairs: Annotated[
        str,
        typer.Option(
            help="Of each kind, pairs whose Earth Mover's Distance is solved too, drawn likewise; all, or 0."
        ),
    ] = "100",
    emd_percents: Annotated[
        str,
        typer.Option(
            help="Thresholds at which it is; 10 and 20 too take up to seconds a pair on a CPU.",
        ),
    ] = "1,2,5,100",
    tolerance: Annotated[
        float, typer.Option(help="Width of a distance's bracket as a part of it, on CUDA; exact on a CPU.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    workers: Annotated[int, typer.Option(help="Worker processes; 0 computes in this one.")] = 0,
    threads: Annotated[
        int | None, typer.Option(help="Threads a process computes with.", show_default="cores / workers")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Throw away pairs that were compared with other options.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Compare maps pair by pair: Bhattacharyya coefficient and Earth Mover's Distance, with certificates.

    Writes pairs/*.h5, the groups `pair` of index.h5, and tables/similarity.csv, paper.csv (our means beside
    the ranges of the paper) and verdicts.csv (a sentence for each model and map). The same command goes on
    where it was interrupted.
    """
    request = CompareRequest(
        out=out,
        kinds=tuple(filter(None, (kind.strip() for kind in kinds.split(",")))),
        pairs=_number("pairs", pairs),
        emd_pairs=_number("emd-pairs", emd_pairs),
        emd_percents=_percents(emd_percents),
        tolerance=tolerance,
        seed=seed,
        workers=workers,
        threads=threads,
        device=device,
        overwrite=overwrite,
    )
    report = run_compare(request, note)
    if report.interrupted or report.failed_tiles:
        if as_json:
            print_json({**asdict(report), "tables": {}, "verdicts": []})
        if report.interrupted:
            note(f"stopped after {report.tiles} tiles; the same command goes on")
            raise typer.Exit(INTERRUPTED)
        note(f"{report.failed_tiles} tiles failed and no table is made; the same command tries them again")
        raise typer.Exit(1)
    found = similarity_tables(out)
    written = write_similarity(out, found)
    if as_json:
        sentences = [asdict(verdict) for verdict in found.verdicts]
        print_json({**asdict(report), "tables": written, "verdicts": sentences})
    else:
        _say(report, found, written)


def _say(report: CompareReport, found: SimilarityTables, written: dict[str, Path]) -> None:
    if not report.complete:
        note(f"{report.out} is not complete: only finished shards are compared")
    if report.without_references:
        note(report.without_references)
    numbers = ", ".join(f"{kind} {number:,}" for kind, number in report.pairs.items())
    before = f", {report.skipped} tiles were finished before" if report.skipped else ""
    note(f"pairs in all maps: {numbers} ({report.seconds:.1f} s{before})")
    if report.left_out:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in report.left_out.items())
        note(f"pairs of images left out in all maps: {reasons}")
    for name, path in written.items():
        note(f"{found.count(name)} rows in {path}")
    for verdict in found.verdicts:
        note(verdict.sentence)


def _number(name: str, text: str) -> int | None:
    """A number of pairs, None for all."""
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError as exc:
        raise RequestError(f"--{name} must be a number or all, got {text!r}") from exc


def _percents(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(percent) for percent in text.split(",") if percent.strip())
    except ValueError as exc:
        raise RequestError(f"--emd-percents must be whole numbers separated by commas, got {text!r}") from exc

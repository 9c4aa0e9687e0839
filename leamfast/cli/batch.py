"""`leamfast batch`: maps for a data set."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from leamfast.cli.output import INTERRUPTED, note, print_json
from leamfast.cli.preprocessing import given_preprocessing
from leamfast.datasets.formats import AUTO, FORMATS
from leamfast.engine.batch_run import BatchReport, BatchRequest, run_batch
from leamfast.engine.run_request import read_options
from leamfast.errors import RequestError
from leamfast.leam.presets import preset as named_preset

__all__ = ["asked", "batch", "finish"]


def batch(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of identity folders, manifest (CSV, Parquet), or a data set in another format.",
            metavar="DATA",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Result folder; made where it does not exist.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model SPEC: demo, NAME=WEIGHTS, timm:ARCH=WEIGHTS, FILE.pt, FILE.pt2, module:factory, "
            "alias:=SPEC. Repeat for more models."
        ),
    ] = None,
    format: Annotated[str, typer.Option(help=f"{', '.join(FORMATS)}, or auto: by what DATA is.")] = AUTO,
    limit_identities: Annotated[
        int | None, typer.Option(help="At most so many identities, drawn with --seed.", show_default="all")
    ] = None,
    images_per_identity: Annotated[
        int | None, typer.Option(help="At most so many images of each, drawn likewise.", show_default="all")
    ] = None,
    min_images: Annotated[int, typer.Option(help="Leave out identities with fewer images.")] = 1,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="auto, all or names separated by commas; NAME:tap,tap for one model.", show_default="auto"
        ),
    ] = None,
    align: Annotated[
        str, typer.Option(help="arcface (by five points), paper (by 68), or none for aligned crops.")
    ] = "arcface",
    detector: Annotated[str | None, typer.Option(help="Face detector: retinaface=FILE or dlib.")] = None,
    faces: Annotated[
        str, typer.Option(help="one: a picture of several faces is left out; largest: its largest is used.")
    ] = "one",
    parser: Annotated[
        str,
        typer.Option(
            help="Face regions: farl=FILE, bisenet=FILE, polygons (of dlib's landmarks), masks=DIR (PNG "
            "files at the images' paths), labels (those that the data names), or none."
        ),
    ] = "labels",
    config: Annotated[
        Path | None, typer.Option(help="run.toml with options; those given here go first.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper (loss, signed, resize) or faithful (similarity, positive, receptive), with mean "
            "references; single options go first.",
            show_default="paper",
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="loss (gradient of 1 - cos) or similarity (of cos).")] = "loss",
    activation: Annotated[str, typer.Option(help="signed, or positive: ReLU of the activations.")] = "signed",
    registration: Annotated[
        str, typer.Option(help="resize, or receptive: cells of a map at their true centres.")
    ] = "resize",
    references: Annotated[
        str, typer.Option(help="mean, each or mean-map: what an image is compared with.")
    ] = "mean",
    max_references: Annotated[int, typer.Option(help="References an image, for each and mean-map.")] = 8,
    precision: Annotated[str, typer.Option(help="fp32, tf32 (on CUDA) or bf16.")] = "fp32",
    backend: Annotated[
        str, typer.Option(help="eager, torchscript, inductor, or auto: the fastest for so many images.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(help="Images computed at once.")] = 16,
    shard_images: Annotated[
        int | None,
        typer.Option(help="Images a part, at least; whole identities.", show_default="by data size"),
    ] = None,
    split_images: Annotated[
        int | None,
        typer.Option(
            help="Cut identities of more images than this into several parts; results stay the same.",
            show_default="1024, or twice --shard-images",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Worker processes, or actors at --address; 0 computes in this one. With --gpus: actors that "
            "decode and align for them."
        ),
    ] = 0,
    gpus: Annotated[int, typer.Option(help="Compute on so many GPUs, by Ray; one actor each.")] = 0,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster: HOST:PORT, ray://HOST:PORT, auto (that of this machine), or local: one of our "
            "own, on this machine, for this run.",
            show_default="RAY_ADDRESS, or local",
        ),
    ] = None,
    max_attempts: Annotated[
        int, typer.Option(help="Failures of a shard after which the images that cause them are looked for.")
    ] = 3,
    shard_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds a shard may take.", show_default="ten times what others take"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads a process computes with.", show_default="cores / workers")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of random draws.")] = 0,
    input_size: Annotated[
        int | None, typer.Option(help="Input side in pixels, for a SPEC that brings none.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Three channel means, for such a SPEC.")] = None,
    std: Annotated[str | None, typer.Option(help="Three standard deviations, for such a SPEC.")] = None,
    channels: Annotated[str | None, typer.Option(help="rgb or bgr, for such a SPEC.")] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Allow module:factory and compiled programs to run.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Compute maps, embeddings and region shares of every image, into HDF5.

    An interrupted or killed run goes on with the same command and --resume; finished parts are kept.
    """
    finish(run_batch(asked(context), note), as_json)


def asked(context: typer.Context, needed: Sequence[str] = ("data", "out", "model")) -> BatchRequest:
    """The request of a command line, with what --config and --preset bring.

    Args:
        context: of a command with the options of `batch`.
        needed: what must be given; without --out it is `leamfast-out` in the current folder.
    """
    params = context.params
    options = {k: v for k, v in params.items() if k in {f.name for f in fields(BatchRequest)}}
    values = _resolve(context, options, params["config"], params["preset"])
    brought = given_preprocessing(params["input_size"], params["mean"], params["std"], params["channels"])
    if brought:
        values["preprocessing"] = {**(values.get("preprocessing") or {}), "*": brought}
    for name in needed:
        if not values.get(name):
            raise RequestError(
                f"{'DATA' if name == 'data' else f'--{name}'} must be given (or a --config that has it)"
            )
    values["data"], values["out"] = Path(values["data"]), Path(values["out"] or "leamfast-out")
    values["model"], values["layers"] = tuple(values["model"]), tuple(values.get("layers") or ("auto",))
    return BatchRequest(**values)


def finish(report: BatchReport, as_json: bool) -> None:
    """Say how a run went, and leave with status 1 where shards failed, 130 where it was stopped."""
    if as_json:
        print_json(asdict(report))
    else:
        kept = f", {report.skipped} shards were finished before" if report.skipped else ""
        note(
            f"{report.images} images of {report.identities} people in {report.out} "
            f"({report.seconds:.1f} s, {report.images_per_second:.1f} images/s{kept})"
        )
        if report.failures:
            stages = ", ".join(f"{number} {stage}" for stage, number in report.left_out.items())
            note(f"{report.failures} rows in {report.out / 'failures.csv'} say what was left out: {stages}")
    if report.shared_pictures and not as_json:
        note(
            f"{report.shared_pictures} pictures stand under more than one person: pairs of different people "
            "may be the same picture"
        )
    if report.blamed and not as_json:
        note(
            f"{report.blamed} images were left out as workers fail of each of them alone: see compute in "
            "failures.csv; to try them again remove the parts of their shards and go on with --resume"
        )
    if report.interrupted:
        note("stopped; go on with --resume")
        raise typer.Exit(INTERRUPTED)
    if report.failed_shards:
        note(f"{report.failed_shards} shards failed; --resume tries them again")
        raise typer.Exit(1)


def _resolve(
    context: typer.Context, options: dict[str, Any], config: Path | None, preset: str | None
) -> dict[str, Any]:
    """Options given on the command line, then those of --preset, of --config, and the defaults."""
    request = {} if config is None else read_options(config)
    chosen = {} if preset is None else asdict(named_preset(preset))
    given = {
        name: value
        for name, value in options.items()
        if (source := context.get_parameter_source(name)) is not None and source.name != "DEFAULT"
    }
    return {**options, **request, **chosen, **given}

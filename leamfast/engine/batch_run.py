"""A whole run of the main pass: request -> settings -> shards -> parts -> index; resumable."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from leamfast.datasets.formats import read_manifest
from leamfast.datasets.limits import limited
from leamfast.datasets.manifest import Manifest
from leamfast.engine.batch import BatchFunction
from leamfast.engine.batch_settings import BatchSettings, ModelSettings
from leamfast.engine.frozen import freeze
from leamfast.engine.local import LocalDriver
from leamfast.engine.maps import MapSettings
from leamfast.engine.plan import Shard, plan_shards
from leamfast.engine.programs import resolve_backends
from leamfast.engine.progress import WorkProgress
from leamfast.engine.request import BatchRequest, check_request
from leamfast.engine.run import RunReport, run
from leamfast.errors import RequestError
from leamfast.faces.detection import parse_detector
from leamfast.faces.parse import parse_parser
from leamfast.faces.regions import REGIONS
from leamfast.leam.diagnostics import program_warnings
from leamfast.leam.program import Program
from leamfast.leam.taps import select_taps
from leamfast.models.face_model import FaceModel
from leamfast.models.loading import brings_preprocessing, load_model, spec_name
from leamfast.models.weights import file_sha256
from leamfast.store.index import IndexSummary, write_index
from leamfast.store.part import Part, PartError, read_part, write_part
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import differences, read_frozen, settings_sha256, write_settings

__all__ = ["BatchReport", "BatchRequest", "PartSink", "run_batch"]


@dataclass(frozen=True)
class BatchReport:
    """What came of a run.

    Attributes:
        out: the result folder.
        images: usable images stored.
        identities: people.
        failures: rows of failures.csv; `left_out`: by stage, from `decode` to `pair`.
        shared_pictures: pictures that stand under more than one person.
        shards: shards computed now; `skipped`: found finished.
        failed_shards: shards that could not be computed.
        interrupted: whether Ctrl-C ended the run early.
        seconds: wall time.
        images_per_second: of the images computed now.
    """

    out: Path
    images: int
    identities: int
    failures: int
    left_out: dict[str, int]
    shared_pictures: int
    shards: int
    skipped: int
    failed_shards: int
    interrupted: bool
    seconds: float
    images_per_second: float


class PartSink:
    """Writes the part of a shard into a result folder."""

    def __init__(self, root: Path, run: str) -> None:
        self.root, self.run = root, run

    def __call__(self, part: Part) -> None:
        write_part(RunFolder(self.root).part(part.shard), replace(part, run=self.run))


def run_batch(request: BatchRequest, note: Callable[[str], None] | None = None) -> BatchReport:
    """Compute maps for a data set.

    Args:
        request: what is asked.
        note: told of what the user should know before the run starts (default: a line on stderr).

    Raises:
        RequestError: the request is wrong; nothing was computed.
        StorageFullError: there is no room left; finished parts are whole.
    """
    note = note or _to_stderr
    started = time.monotonic()
    check_request(request)
    folder = RunFolder(request.out)
    if folder.settings.is_file() and not request.resume:
        raise RequestError(
            f"result folder {request.out} holds a run already: go on with --resume or choose another --out"
        )
    if request.out.is_dir() and any(request.out.iterdir()) and not request.resume:
        raise RequestError(f"result folder {request.out} is not empty: choose another --out")
    manifest = limited(
        read_manifest(request.data, request.format),
        identities=request.limit_identities,
        images_per_identity=request.images_per_identity,
        min_images=request.min_images,
        seed=request.seed,
    )
    if manifest.ignored:
        note(f"{manifest.ignored} files without an image's suffix are ignored")
    for reason, number in manifest.left_out.items():
        note(f"left out: {number} x {reason}")
    if request.align == "paper":
        note(
            "models that were trained on arcface crops see more of the picture with --align paper and tell "
            "people apart less well: look at cosines between different people before you read maps"
        )
    models = _load_models(request)
    before = read_frozen(folder.settings) if folder.settings.is_file() else None
    settings = _settings(request, manifest, models, before)
    settings, programs = resolve_backends(
        request.backend, settings, models, len(manifest.entries), before, note
    )
    plan = plan_shards(manifest, request.shard_images or _shard_images(len(manifest.entries)))
    frozen = freeze(
        settings,
        models,
        manifest_sha256=manifest.sha256(),
        detector_sha256=_detector_sha256(settings.detector),
        parser_sha256=_parser_sha256(settings.parser),
        shards=[shard.images for shard in plan],
        precision=request.precision,
    )
    _warn(programs, settings, note)
    del models
    function = BatchFunction(settings, programs)
    _ = function.finding, function.parsing  # loaded now: what cannot be used leaves no folder behind
    with folder.locked():
        if folder.settings.is_file() != (before is not None):
            raise RequestError(f"result folder {request.out} was begun by another run meanwhile: try again")
        if before is not None:
            before = read_frozen(folder.settings)
        elif folder.finished(len(plan)):
            raise RequestError(
                f"result folder {request.out} holds parts but no run.toml that says how they were made: "
                "choose another --out"
            )
        if before is None:
            write_settings(folder.settings, asdict(request), frozen)
        elif changed := differences(before, frozen):
            raise RequestError(
                f"result folder {request.out} was made with other settings ({'; '.join(changed)}): "
                "ask for the same ones to go on, or choose another --out"
            )
        report, summary = _compute(folder, plan, function, settings_sha256(frozen), request.workers, note)
    seconds = time.monotonic() - started
    done = set(report.done)
    finished = sum(shard.images for shard in plan if shard.number in done)
    return BatchReport(
        out=request.out,
        images=summary.rows,
        identities=summary.persons,
        failures=sum(summary.left_out.values()),
        left_out=summary.left_out,
        shared_pictures=summary.shared,
        shards=len(report.done),
        skipped=summary.parts - len(report.done),
        failed_shards=len(report.failed),
        interrupted=report.interrupted,
        seconds=round(seconds, 3),
        images_per_second=round(finished / seconds, 2),
    )


def _compute(
    folder: RunFolder,
    plan: Sequence[Shard],
    function: BatchFunction,
    run_sha256: str,
    workers: int,
    note: Callable[[str], None],
) -> tuple[RunReport, IndexSummary]:
    finished = _finished(folder, plan, run_sha256, note)
    left = [shard for shard in plan if shard.number not in finished]
    total = sum(shard.images for shard in plan)
    with WorkProgress("maps", total, done=total - sum(shard.images for shard in left)) as progress:
        report = run(
            left,
            function,
            PartSink(folder.root, run_sha256),
            driver=LocalDriver(workers),
            advance=progress.advance,
            note=progress.note,
        )
    parts = [folder.part(number) for number in sorted(finished | set(report.done))]
    failed = [
        (entry.name, entry.identity, "compute", report.failed[shard.number])
        for shard in plan
        if shard.number in report.failed
        for identity in shard.identities
        for entry in identity.entries
    ]
    return report, write_index(folder.root, parts, len(plan), REGIONS, failed)


def _finished(
    folder: RunFolder, plan: Sequence[Shard], run_sha256: str, note: Callable[[str], None]
) -> set[int]:
    """Shards whose parts are there, whole and this run's; what was damaged later is made again."""
    finished = set()
    for number in folder.finished(len(plan)):
        path = folder.part(number)
        try:
            part = read_part(path)
            if (part.shard, part.run) != (number, run_sha256):
                raise PartError(f"{path.name} is another shard's or another run's")
            finished.add(number)
        except PartError as exc:
            note(f"{exc}: its shard is computed again")
    return finished


def _load_models(request: BatchRequest) -> list[FaceModel]:
    models = []
    given = request.preprocessing or {}
    if "*" in given and all(map(brings_preprocessing, request.model)):
        raise RequestError(
            "--input-size, --mean, --std and --channels must not be given: "
            "every model of this run brings its own"
        )
    for spec in request.model:
        brought = None if brings_preprocessing(spec) else given.get(spec_name(spec), given.get("*"))
        models.append(
            load_model(spec, preprocessing=brought, trust_code=request.trust_code, device=request.device)
        )
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise RequestError(
                f"model name {name!r} is used twice: rename one, for example {name}2:={request.model[-1]}"
            )
    if not models:
        raise RequestError("model must be given at least once, for example --model demo")
    return models


def _settings(
    request: BatchRequest, manifest: Manifest, models: Sequence[FaceModel], before: dict[str, Any] | None
) -> BatchSettings:
    layers = _layers_by_model(request.layers, [model.name for model in models])
    threads = request.threads
    if threads is None:  # a resumed run keeps the number of threads, whatever the number of workers is now
        threads = before["threads"] if before else max(1, (os.cpu_count() or 1) // max(1, request.workers))
    return BatchSettings(
        root=manifest.root.resolve(),
        models=tuple(
            ModelSettings(
                spec,
                model.name,
                tuple(tap.name for tap in select_taps(model, layers[model.name])),
                request.backend,
                None if brings_preprocessing(spec) else model.preprocessing.to_dict(),
            )
            for spec, model in zip(request.model, models, strict=True)
        ),
        detector=request.detector if request.align != "none" else None,
        align=request.align,
        faces=request.faces,
        parser=_parser(request.parser, manifest),
        columns=manifest.columns,
        person_columns=_person_columns(manifest),
        target=request.target,
        activation=request.activation,
        registration=request.registration,
        precision=request.precision,
        maps=MapSettings(request.references, request.max_references, request.seed, request.batch_size),
        threads=threads,
        device=request.device,
        trust_code=request.trust_code,
    )


def _detector_sha256(spec: str | None) -> str | None:
    return None if spec is None else file_sha256(parse_detector(spec).weights)


def _parser(parser: str, manifest: Manifest) -> str:
    """The parser as asked; `none` where the data set brings none of the masks that are asked for."""
    if parser == "labels" and all(entry.label is None for entry in manifest.entries):
        return "none"
    spec = parse_parser(parser)
    return parser if spec.path is None else f"{spec.name}={spec.path.resolve()}"


def _parser_sha256(parser: str) -> str | None:
    spec = parse_parser(parser)
    return file_sha256(spec.path) if spec.of_faces and spec.path is not None else None


def _warn(programs: Mapping[str, Program], settings: BatchSettings, note: Callable[[str], None]) -> None:
    """Say before the run which taps are known to mislead, one line a reason."""
    for name, program in programs.items():
        found = program_warnings(program, settings.activation, settings.registration)
        reasons: dict[str, list[str]] = {}
        for tap, texts in found.items():
            for text in texts:
                reasons.setdefault(text, []).append(tap)
        for text, taps in reasons.items():
            note(f"{name} {', '.join(taps)}: {text}")


def _layers_by_model(layers: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """`auto`, `all` or `tap,tap` for every model; `NAME:tap,tap` for one of them."""
    everyone, own = "auto", {}
    for item in layers:
        name, colon, taps = item.partition(":")
        if not colon:
            everyone = item
        elif name in names:
            own[name] = taps
        else:
            raise RequestError(
                f"layers {item!r} names a model that is not in this run: {', '.join(names)} are"
            )
    return {name: own.get(name, everyone) for name in names}


def _person_columns(manifest: Manifest) -> tuple[str, ...]:
    """The metadata columns that say the same of all images of each identity."""
    constant = []
    for column in manifest.columns:
        values: dict[str, str] = {}
        if all(
            values.setdefault(e.identity, e.metadata[column]) == e.metadata[column] for e in manifest.entries
        ):
            constant.append(column)
    return tuple(c for c in constant if c not in ("name", "images"))


def _shard_images(images: int) -> int:
    """Shards small enough to lose little with one, large enough that their number stays manageable."""
    return min(1024, max(64, images // 500))


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

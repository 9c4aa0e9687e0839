"""A whole run of `leamfast align`: request -> shards -> crops and records -> manifest; resumable."""

import csv
import hashlib
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from leamfast.datasets.entry import Entry
from leamfast.datasets.formats import AUTO, read_manifest
from leamfast.datasets.ingest import manifest_bytes
from leamfast.datasets.limits import limited
from leamfast.datasets.manifest import Manifest
from leamfast.engine.align import (
    AlignFunction,
    AlignSettings,
    Crop,
    CropSink,
    Record,
    RecordError,
    check_crops,
    read_record,
    record_path,
)
from leamfast.engine.crop_names import crop_names, folder_names
from leamfast.engine.frozen import code_sha256, package_versions
from leamfast.engine.local import LocalDriver
from leamfast.engine.plan import Shard, plan_pieces
from leamfast.engine.progress import WorkProgress
from leamfast.engine.run import RunReport, run
from leamfast.errors import RequestError
from leamfast.faces.detection import parse_detector
from leamfast.faces.selection import FACES
from leamfast.models.devices import check_device, device_name
from leamfast.models.weights import file_sha256
from leamfast.store.atomic import write_atomically
from leamfast.store.part import FAILURE_FIELDS, Failure
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import differences, read_frozen, settings_sha256, write_settings

__all__ = ["CROP_ALIGNMENTS", "SOURCE", "AlignReport", "AlignRequest", "run_align", "shard_images"]

CROP_ALIGNMENTS = ("arcface", "paper")
SOURCE, MANIFEST = "source", "manifest.csv"
MAX_SIZE = 4096
OWN = ".align"
"""Folder inside that of the crops, with run.toml, the lock and the records."""


@dataclass(frozen=True)
class AlignRequest:
    """What a user asks of `leamfast align`; the command's options have the same names and meanings."""

    data: Path
    out: Path
    detector: str
    format: str = AUTO
    limit_identities: int | None = None
    images_per_identity: int | None = None
    min_images: int = 1
    align: str = "arcface"
    faces: str = "one"
    size: int = 112
    workers: int = 0
    threads: int | None = None
    device: str = "cpu"
    seed: int = 0
    resume: bool = False


@dataclass(frozen=True)
class AlignReport:
    """What came of a run.

    Attributes:
        out: the folder of the crops.
        images: crops in it.
        identities: people who have one.
        failures: rows of failures.csv; `left_out`: by stage, from `decode` to `compute`.
        shards: shards computed now; `skipped`: found finished.
        failed_shards: shards that could not be computed.
        interrupted: whether Ctrl-C ended the run early; manifest.csv and failures.csv are not written then.
        seconds: wall time.
        images_per_second: of the images searched now.
    """

    out: Path
    images: int
    identities: int
    failures: int
    left_out: dict[str, int]
    shards: int
    skipped: int
    failed_shards: int
    interrupted: bool
    seconds: float
    images_per_second: float


def run_align(request: AlignRequest, note: Callable[[str], None] | None = None) -> AlignReport:
    """Cut aligned crops out of the images of a data set.

    Args:
        request: what is asked.
        note: told of what the user should know before the run starts (default: a line on stderr).

    Raises:
        RequestError: the request is wrong; nothing was written.
        StorageFullError: there is no room left; finished shards are whole.
    """
    note = note or _to_stderr
    started = time.monotonic()
    _check_choices(request)
    folder = RunFolder(request.out / OWN)
    _check_folder(request, folder)
    manifest = limited(
        read_manifest(request.data, request.format),
        identities=request.limit_identities,
        images_per_identity=request.images_per_identity,
        min_images=request.min_images,
        seed=request.seed,
    )
    columns = _columns(manifest)
    _check_cells(manifest, columns, request.out)
    _say(manifest, columns, note)
    before = read_frozen(folder.settings) if folder.settings.is_file() else None
    plan = plan_pieces(manifest, shard_images(len(manifest.entries)))
    settings = _settings(request, manifest, plan, before)
    frozen = _freeze(settings, manifest, plan)
    function = AlignFunction(settings)
    _ = function.finding  # loaded now, so that one that cannot be used leaves no folder behind
    with folder.locked():
        for left in (*folder.shards.glob(".*.tmp"), *request.out.glob(".*.csv.*.tmp")):
            left.unlink(missing_ok=True)
        if folder.settings.is_file() != (before is not None):
            raise RequestError(f"folder {request.out} was begun by another run meanwhile: try again")
        if before is None:
            write_settings(folder.settings, asdict(request), frozen)
        elif changed := differences(read_frozen(folder.settings), frozen):
            raise RequestError(
                f"folder {request.out} was made with other settings ({'; '.join(changed)}): "
                "ask for the same ones to go on, or choose another --out"
            )
        report, records = _compute(request, folder, plan, function, settings_sha256(frozen), note)
        if not report.interrupted:
            crops, failures = _tables(request.out, plan, records, report.failed, columns)
            write_atomically(request.out / "failures.csv", failures)
            write_atomically(request.out / MANIFEST, crops)
    seconds = time.monotonic() - started
    made = [crop for record in records.values() for crop in record.crops]
    left_out = Counter(failure.stage for record in records.values() for failure in record.failures)
    left_out.update({"compute": sum(s.images for s in plan if s.number in report.failed)})
    done = set(report.done)
    finished = sum(shard.images for shard in plan if shard.number in done)
    return AlignReport(
        out=request.out,
        images=len(made),
        identities=len({crop.identity for crop in made}),
        failures=left_out.total(),
        left_out={stage: number for stage, number in left_out.items() if number},
        shards=len(report.done),
        skipped=len(records) - len(report.done),
        failed_shards=len(report.failed),
        interrupted=report.interrupted,
        seconds=round(seconds, 3),
        images_per_second=round(finished / seconds, 2),
    )


def _compute(
    request: AlignRequest,
    folder: RunFolder,
    plan: Sequence[Shard],
    function: AlignFunction,
    run_sha256: str,
    note: Callable[[str], None],
) -> tuple[RunReport, dict[int, Record]]:
    """How the run went, and the records of all finished shards by number."""
    records = {}
    for shard in plan:
        if record_path(folder.shards, shard.number).is_file():
            try:
                record = read_record(folder.shards, shard.number, run_sha256)
                check_crops(request.out, record)
                records[shard.number] = record
            except RecordError as exc:
                note(f"{exc}: its shard is computed again")
    left = [shard for shard in plan if shard.number not in records]
    total = sum(shard.images for shard in plan)
    with WorkProgress("crops", total, done=total - sum(shard.images for shard in left)) as progress:
        report = run(
            left,
            function,
            CropSink(request.out, folder.shards, run_sha256),
            driver=LocalDriver(request.workers),
            listener=progress,
        )
    records |= {number: read_record(folder.shards, number, run_sha256) for number in report.done}
    return report, dict(sorted(records.items()))


def _tables(
    out: Path,
    plan: Sequence[Shard],
    records: Mapping[int, Record],
    failed: Mapping[int, str],
    columns: Mapping[str, str],
) -> tuple[bytes, bytes]:
    """The content of manifest.csv and of failures.csv."""
    crops = _manifest(out, (crop for record in records.values() for crop in record.crops), columns)
    failures = [failure for record in records.values() for failure in record.failures]
    failures += [
        Failure(entry.name, entry.identity, "compute", failed[shard.number])
        for shard in plan
        if shard.number in failed
        for identity in shard.identities
        for entry in identity.entries
    ]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(FAILURE_FIELDS)
    writer.writerows([getattr(failure, name) for name in FAILURE_FIELDS] for failure in failures)
    return manifest_bytes(crops, out / MANIFEST), text.getvalue().encode()


def _manifest(out: Path, crops: Iterable[Crop], columns: Mapping[str, str]) -> Manifest:
    """Crops as the rows of manifest.csv."""
    entries = tuple(
        Entry(
            crop.path,
            crop.identity,
            metadata={
                SOURCE: crop.source,
                **{written: crop.metadata[column] for column, written in columns.items()},
            },
        )
        for crop in crops
    )
    return Manifest(out, entries, (SOURCE, *columns.values()))


def _columns(manifest: Manifest) -> dict[str, str]:
    """Metadata columns and what they are called in manifest.csv, where `source` is a column of its own."""
    names = dict(zip(manifest.columns, manifest.columns, strict=True))
    if SOURCE in names:
        number = next(n for n in count(2) if f"{SOURCE}_{n}" not in names)
        names[SOURCE] = f"{SOURCE}_{number}"
    return names


def _check_cells(manifest: Manifest, columns: Mapping[str, str], out: Path) -> None:
    """Refuse, before any work is done, what manifest.csv could not hold."""
    crops = (Crop(e.name, "", e.identity, e.name, e.metadata) for e in manifest.entries)
    manifest_bytes(_manifest(out, crops, columns), out / MANIFEST)


def _say(manifest: Manifest, columns: Mapping[str, str], note: Callable[[str], None]) -> None:
    """What is left out and what is changed."""
    if manifest.ignored:
        note(f"{manifest.ignored} files without an image's suffix are ignored")
    for reason, number in manifest.left_out.items():
        note(f"left out: {number} x {reason}")
    if any(entry.label is not None for entry in manifest.entries):
        note("region masks of DATA belong to its images and are not carried over to the crops")
    if columns.get(SOURCE, SOURCE) != SOURCE:
        note(f"the column {SOURCE} of DATA is called {columns[SOURCE]} in manifest.csv")


def _names_of_cut(manifest: Manifest, plan: Sequence[Shard]) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Names of the crops of people who lie in several shards: they depend on each other."""
    pieces = Counter(identity.name for shard in plan for identity in shard.identities)
    firsts: dict[str, int] = {}
    entries: dict[str, list[Entry]] = {}
    for position, entry in enumerate(manifest.entries):
        if pieces[entry.identity] > 1:
            firsts.setdefault(entry.identity, position)
            entries.setdefault(entry.identity, []).append(entry)
    return {name: (firsts[name], tuple(crop_names(group))) for name, group in entries.items()}


def _settings(
    request: AlignRequest, manifest: Manifest, plan: Sequence[Shard], before: Mapping[str, Any] | None
) -> AlignSettings:
    threads = request.threads
    if threads is None:  # a resumed run keeps the number of threads, whatever the number of workers is now
        threads = before["threads"] if before else max(1, (os.cpu_count() or 1) // max(1, request.workers))
    return AlignSettings(
        root=manifest.root.resolve(),
        folders=folder_names(manifest.identities),
        names=_names_of_cut(manifest, plan),
        detector=request.detector,
        align=request.align,
        faces=request.faces,
        size=request.size,
        threads=threads,
        device=request.device,
    )


def _freeze(settings: AlignSettings, manifest: Manifest, plan: Sequence[Shard]) -> dict[str, Any]:
    """Everything that the crops depend on, as plain values."""
    spec = parse_detector(settings.detector)
    boundaries = ",".join(str(shard.images) for shard in plan)
    return {
        "manifest": manifest.sha256(),
        "shards": {
            "count": len(plan),
            "images": len(manifest.entries),
            "boundaries": hashlib.sha256(boundaries.encode()).hexdigest(),
        },
        "detector": {"name": spec.name, "weights": file_sha256(spec.weights)},
        "align": settings.align,
        "faces": settings.faces,
        "size": settings.size,
        "threads": settings.threads,
        "device": device_name(settings.device),
        "versions": package_versions(),
        "code": code_sha256(),
    }


def shard_images(images: int) -> int:
    """Shards small enough for several workers to end together, and not too many of them."""
    return min(256, max(16, images // 2000))


def _check_folder(request: AlignRequest, folder: RunFolder) -> None:
    """Refuse a folder in which files that are not ours could be replaced."""
    out = request.out
    if folder.settings.is_file():
        if not request.resume:
            raise RequestError(
                f"folder {out} holds crops already: go on with --resume or choose another --out"
            )
    elif out.is_dir() and any(not request.resume or path.name != OWN for path in out.iterdir()):
        raise RequestError(f"folder {out} is not empty: choose another --out")
    if request.data.is_dir() and out.resolve().is_relative_to(request.data.resolve()):
        raise RequestError(
            f"--out must lie outside of DATA, whose files the crops would join, got {out}: choose another"
        )


def _check_choices(request: AlignRequest) -> None:
    choices = {"align": (request.align, CROP_ALIGNMENTS), "faces": (request.faces, FACES)}
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise RequestError(f"--{name} must be one of {', '.join(allowed)}, got {value!r}")
    if not 1 <= request.size <= MAX_SIZE:
        raise RequestError(f"--size must be 1 to {MAX_SIZE} pixels, got {request.size}")
    if request.threads is not None and request.threads < 1:
        raise RequestError(f"--threads must be at least 1, got {request.threads}")
    if request.workers < 0:
        raise RequestError(f"--workers must not be negative, got {request.workers}")
    if request.align == "paper" and not request.detector.startswith("dlib"):
        raise RequestError(
            f"--align paper needs the 68 landmarks of --detector dlib, got --detector {request.detector}"
        )
    parse_detector(request.detector)
    check_device(request.device)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

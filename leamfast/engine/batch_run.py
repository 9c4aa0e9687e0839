"""A whole run of the main pass: request -> settings -> shards -> parts -> index; resumable."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from leamfast.datasets.manifest import Manifest
from leamfast.engine.batch import BatchFunction
from leamfast.engine.closing import ClosingFunction, close_identities, lost_slices
from leamfast.engine.plan import Shard
from leamfast.engine.prepare import check_folder, prepare, read_data, warn_of_taps
from leamfast.engine.progress import WorkProgress
from leamfast.engine.references_pass import make_references
from leamfast.engine.request import BatchRequest
from leamfast.engine.run import RunReport, run
from leamfast.engine.site import LocalSite, Site
from leamfast.engine.slices import splits
from leamfast.errors import RequestError
from leamfast.faces.regions import REGIONS
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
        blamed: images left out now because workers died, or failed, of each of them alone.
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
    blamed: int
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
        StorageError: results cannot be kept; finished parts are whole.
    """
    note = note or _to_stderr
    started = time.monotonic()
    folder = check_folder(request)
    manifest = read_data(request, note)
    before = read_frozen(folder.settings) if folder.settings.is_file() else None
    with _site(request, before, note) as site:
        return _run_there(request, manifest, folder, site, before, note, started)


def _run_there(
    request: BatchRequest,
    manifest: Manifest,
    folder: RunFolder,
    site: Site,
    before: dict[str, Any] | None,
    note: Callable[[str], None],
    started: float,
) -> BatchReport:
    prepared = prepare(request, manifest, site, before, note)
    function, plan, frozen = prepared.function, prepared.plan, prepared.frozen
    warn_of_taps(prepared, note)
    _ = function.finding, function.parsing  # loaded now: what cannot be used leaves no folder behind
    with folder.locked(), closing(site):  # workers end before what they left is swept
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
        report, skipped, summary = _compute(folder, plan, function, settings_sha256(frozen), site, note)
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
        skipped=skipped,
        failed_shards=len(report.failed),
        blamed=sum(map(len, report.blamed.values())),
        interrupted=report.interrupted,
        seconds=round(seconds, 3),
        images_per_second=round(finished / seconds, 2),
    )


@contextmanager
def _site(
    request: BatchRequest, before: dict[str, Any] | None, note: Callable[[str], None]
) -> Iterator[Site]:
    """Where the run is computed, while the block runs."""
    if not request.on_ray:
        yield LocalSite(request)
        return
    from leamfast.engine.cluster.site import ray_site

    with ray_site(request, before, note) as site:
        yield site


def _compute(
    folder: RunFolder,
    plan: Sequence[Shard],
    function: BatchFunction,
    run_sha256: str,
    site: Site,
    note: Callable[[str], None],
) -> tuple[RunReport, int, IndexSummary]:
    finished = _finished(folder, plan, run_sha256, note)
    finished -= {  # a closing part says what its slices are: made again with any of them
        split.closing for split in splits(plan) if not set(split.shards[:-1]) <= finished
    }
    left = [shard for shard in plan if shard.number not in finished and not shard.closes]
    sink = PartSink(folder.root.resolve(), run_sha256)
    before = make_references(folder, plan, left, function, run_sha256, site, note)
    left = [] if before.stopped else [shard for shard in left if shard.number not in before.failed]
    needed = {shard.split.start for shard in left if shard.split is not None}
    function.references = site.share(function.references.only(needed))
    total = sum(shard.images for shard in plan)
    done = total - sum(shard.images for shard in left)
    with WorkProgress("maps", total, done=done, log=folder.progress) as progress:
        report = run(
            left,
            function,
            sink,
            driver=site.driver(folder.root, progress),
            listener=progress,
        )
        closes = ClosingFunction(folder, plan, function)
        closed = close_identities(plan, finished | set(report.done), closes, sink, progress)
    report.done += closed.done
    report.failed |= before.failed | closed.failed
    for number, images in before.blamed.items():
        report.blamed[number] = {**images, **report.blamed.get(number, {})}
    report.interrupted |= before.stopped or closed.interrupted
    there = finished | set(report.done)
    lost = lost_slices(plan, there, report.failed)
    reasons = report.failed | {number: reason for number, reason in lost.items() if reason is not None}
    failed = [
        (entry.name, entry.identity, "compute", reasons[shard.number])
        for shard in plan
        if shard.number in reasons
        for identity in shard.identities
        for entry in identity.entries
    ]
    parts = [folder.part(number) for number in sorted(there - set(lost))]
    return report, len(finished), write_index(folder.root, parts, len(plan), REGIONS, failed)


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


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

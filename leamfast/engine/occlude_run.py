"""A whole occlusion pass over a finished run: request -> plan -> blocks -> index; resumable by block."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leamfast.engine.frozen import code_sha256, package_versions
from leamfast.engine.later_pass import default_threads, frozen_before, rewrite_index
from leamfast.engine.local import LocalDriver
from leamfast.engine.occlude import BlockSink, OccludeFunction, OccludePiece
from leamfast.engine.occlude_plan import (
    images_of_model,
    plan_blocks,
    settings_of,
    sources_of,
    usable_controls,
)
from leamfast.engine.occlude_request import (
    STEPS,
    OccludeRequest,
    check_percents,
    check_request,
    default_batch,
)
from leamfast.engine.occlusion_evaluation import CHANGED
from leamfast.engine.occlusion_models import evaluated_models
from leamfast.engine.prepare import read_data
from leamfast.engine.progress import WorkProgress
from leamfast.engine.recrop import Recrop
from leamfast.engine.run import RunReport, run
from leamfast.engine.run_request import request_of
from leamfast.errors import RequestError
from leamfast.models.devices import device_name
from leamfast.store.occlusion_block import block_file, block_files, block_name, read_left_out
from leamfast.store.pair_index import parts_sha256
from leamfast.store.part import PartError, check_seal
from leamfast.store.results import Results, open_results
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import differences, read_frozen, settings_sha256, write_settings

__all__ = ["TABLES", "OccludeReport", "run_occlude"]

TABLES = (
    "occlusion", "transfer", "specificity", "specificity_identities", "specificity_verdicts",
    "within_person", "fills", "groups", "curves", "curve_areas",
)  # fmt: skip
"""What is made of the drops, and says what they were."""

LOOKED_AT = 16
"""Images that are read before a pass begins."""


@dataclass(frozen=True)
class OccludeReport:
    """What came of an occlusion pass.

    Attributes:
        out: the result folder.
        images: rows of the run.
        sources: models whose maps were occluded; `evaluated`: those that embedded the occluded images.
        without: model -> why it embeds nothing.
        controls: as computed.
        left_out: reason -> images that could not be occluded.
        blocks: computed now; `skipped`: found finished; `failed_blocks`: those that could not be computed.
        complete: whether the run itself is complete.
        interrupted: whether Ctrl-C ended the pass early.
        seconds: wall time.
    """

    out: Path
    images: int
    sources: tuple[str, ...]
    evaluated: tuple[str, ...]
    without: dict[str, str]
    controls: tuple[str, ...]
    left_out: dict[str, int]
    blocks: int
    skipped: int
    failed_blocks: int
    complete: bool
    interrupted: bool
    seconds: float


def run_occlude(request: OccludeRequest, note: Callable[[str], None]) -> OccludeReport:
    """Occlude the supports of the maps of a finished run.

    Args:
        request: what is asked.
        note: told of what the user should know.

    Raises:
        RequestError: the request is wrong, there is no such run, its data or all of its models are gone, or
            its images were occluded otherwise.
        StorageError: results cannot be kept; finished blocks are whole.
    """
    started = time.monotonic()
    check_request(request)
    with open_results(request.out, with_pairs=False) as results:  # before anything is made in its folder
        if not results.models or len(results) == 0:
            raise RequestError(f"{request.out} holds no usable image: its failures.csv says why")
    folder = RunFolder(request.out)
    with folder.locked(), open_results(request.out, with_pairs=False) as results:
        return _run_there(request, folder, results, note, started)


def _run_there(
    request: OccludeRequest,
    folder: RunFolder,
    results: Results,
    note: Callable[[str], None],
    started: float,
) -> OccludeReport:
    before = _before(request, folder)
    kept = None if request.overwrite else before
    batch = request_of(folder, request.data)
    threads = request.threads or (kept["threads"] if kept else default_threads(request.workers))
    controls = usable_controls(request, results, note)
    sources = sources_of(request, results)
    steps = STEPS if request.curves else ()
    images = images_of_model(results, sources, request.percents, controls, request.seeds, steps)
    models = evaluated_models(request, batch, results, images, threads, kept, note)
    check_percents(request.percents, map(results.input_size, models.programs))
    frozen = {
        "run": settings_sha256(read_frozen(folder.settings)),
        "parts": parts_sha256(digest for _, digest in results.parts),
        "percents": sorted({float(percent) for percent in request.percents}),
        "fills": list(dict.fromkeys(request.fills)),
        "controls": list(controls),
        "seeds": request.seeds,
        "curves": request.curves,
        "sources": list(sources),
        "models": {model.name: model.backend for model in models.evaluated},
        "without": sorted(models.without),
        "batch_size": request.batch_size or default_batch(request.device),
        "threads": threads,
        "device": device_name(request.device),
        "versions": package_versions(),
        "code": code_sha256(),
    }
    changed = [] if before is None else differences(before, frozen)
    if changed and not request.overwrite:
        raise RequestError(
            f"images of {request.out} were occluded with other settings ({'; '.join(changed)}): ask for "
            "the same ones to go on, or throw them away with --overwrite"
        )
    manifest = read_data(batch, lambda text: None)
    recrop = Recrop(results, manifest)
    _check_photos(recrop, results)
    settings = settings_of(request, batch, results, models.evaluated, frozen)
    programs = models.programs if request.workers == 0 else None  # else each process loads its own
    function = OccludeFunction(settings, manifest, programs)
    plan = plan_blocks(results, settings)
    folder.occlusion.mkdir(exist_ok=True)
    if before is None or changed:
        _throw_away(folder, results)
        asked = {**asdict(request), "left_out_models": models.without}
        write_settings(folder.occlude_settings, asked, frozen)
    each = len(models.evaluated) * len(request.fills)
    note(f"{images * each:,} occluded images are embedded, about")
    report, finished = _compute(folder, plan, function, recrop, request.workers, note)
    rewrite_index(folder, results)
    return OccludeReport(
        out=request.out,
        images=len(results),
        sources=settings.sources,
        evaluated=tuple(model.name for model in models.evaluated),
        without=models.without,
        controls=controls,
        left_out=_left_out(folder),
        blocks=len(report.done),
        skipped=len(finished),
        failed_blocks=len(report.failed),
        complete=results.complete,
        interrupted=report.interrupted,
        seconds=round(time.monotonic() - started, 3),
    )


def _before(request: OccludeRequest, folder: RunFolder) -> dict[str, Any] | None:
    """Frozen settings of the pass that was begun here; None where there is none that can be gone on with."""
    if not folder.occlude_settings.is_file():
        return None
    try:
        return frozen_before(folder.occlude_settings, "how its images were occluded")
    except RequestError:
        if request.overwrite:
            return None
        raise


def _check_photos(recrop: Recrop, results: Results) -> None:
    """Raise a RequestError where none of a few images, from all over the run, is as the run read it."""
    rows = np.unique(np.linspace(0, len(results) - 1, LOOKED_AT).astype(int))
    failures = recrop.crops(rows, [results.input_size(results.models[0])]).failures
    if len(failures) == len(rows):
        row, reason = next(iter(failures.items()))
        raise RequestError(
            f"no image of {results.root} that was looked at is as its run read it "
            f"({results.text('image/path')[row]}: {reason}): give --data, where they are now"
        )


def _compute(
    folder: RunFolder,
    plan: Sequence[OccludePiece],
    function: OccludeFunction,
    recrop: Recrop,
    workers: int,
    note: Callable[[str], None],
) -> tuple[RunReport, set[int]]:
    run_sha256 = function.settings.run
    finished = {piece.number for piece in plan if _is_finished(folder, piece, recrop, run_sha256, note)}
    left = [piece for piece in plan if piece.number not in finished]
    total = sum(piece.amount for piece in plan)
    done = total - sum(piece.amount for piece in left)
    try:
        with WorkProgress("occlusion", total, done=done, unit="images") as progress:
            report = run(
                left, function, BlockSink(folder.occlusion), driver=LocalDriver(workers), listener=progress
            )
    finally:
        function.close()
    return report, finished


def _is_finished(
    folder: RunFolder, piece: OccludePiece, recrop: Recrop, run_sha256: str, note: Callable[[str], None]
) -> bool:
    """Whether a block is there, whole and of these settings; what was damaged later is made again.

    So is a block without an image that could not be read then, and can be now.
    """
    path = block_file(folder.occlusion, piece.number)
    if not path.is_file():
        return False
    try:
        check_seal(path)
        found = block_name(path)
        mine = piece.count, piece.first, piece.rows, run_sha256
        if (found.count, found.first, found.rows, found.run) != mine:
            raise PartError(f"{path.name} is of another pass")
        unread = [row for row, why in read_left_out(path).items() if not why.startswith(CHANGED)]
    except PartError as exc:
        note(f"{exc}: it is computed again")
        return False
    return not unread or len(recrop.crops(unread, []).failures) == len(unread)


def _throw_away(folder: RunFolder, results: Results) -> None:
    """Remove the blocks of another pass; the index first, which cannot be read without them."""
    old = block_files(folder.occlusion)
    folder.occlude_settings.unlink(missing_ok=True)
    if old:
        rewrite_index(folder, results)
    for path in old:
        path.unlink()
    for name in TABLES:
        (folder.tables / f"{name}.csv").unlink(missing_ok=True)


def _left_out(folder: RunFolder) -> dict[str, int]:
    """Why images could not be occluded, and how many for each reason."""
    reasons: Counter[str] = Counter()
    for path in block_files(folder.occlusion):
        with suppress(PartError):  # left by a pass that was stopped; `verify` names it
            reasons.update(read_left_out(path).values())
    return dict(reasons)

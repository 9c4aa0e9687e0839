"""A whole pass over the pairs of a finished run: request -> plan -> tiles -> index; resumable by tile."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leamfast.engine.compare import OF_REFERENCES, CompareFunction, CompareSettings, TileSink
from leamfast.engine.frozen import code_sha256, package_versions
from leamfast.engine.later_pass import default_threads, frozen_before, rewrite_index
from leamfast.engine.local import LocalDriver
from leamfast.engine.pair_maps import FUSED
from leamfast.engine.pair_plan import plan_pairs
from leamfast.engine.pair_tiles import PairTile
from leamfast.engine.progress import WorkProgress
from leamfast.engine.run import RunReport, run
from leamfast.errors import RequestError
from leamfast.models.devices import check_device, device_name
from leamfast.store.arrays import THRESHOLDS
from leamfast.store.pair_index import parts_sha256
from leamfast.store.pair_join import tile_files
from leamfast.store.pairs import KINDS, read_tile, tile_file
from leamfast.store.part import PartError
from leamfast.store.results import Results, open_results
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import differences, read_frozen, settings_sha256, write_settings

__all__ = ["CompareReport", "CompareRequest", "run_compare"]


@dataclass(frozen=True)
class CompareRequest:
    """What a user asks of `leamfast compare`; the command's options have the same names and meanings."""

    out: Path
    kinds: tuple[str, ...] = KINDS
    pairs: int | None = 20_000
    emd_pairs: int | None = 100
    emd_percents: tuple[int, ...] = (1, 2, 5, 100)
    tolerance: float = 0.01
    seed: int = 0
    workers: int = 0
    threads: int | None = None
    device: str = "cpu"
    overwrite: bool = False


@dataclass(frozen=True)
class CompareReport:
    """What came of a comparison.

    Attributes:
        out: the result folder.
        pairs: kind -> pairs in all maps together, computed now or before.
        left_out: reason -> pairs of images that are left out for it, in all maps together.
        tiles: tiles computed now; `skipped`: found finished.
        failed_tiles: tiles that could not be computed.
        complete: whether the run that was compared is complete.
        without_references: why there are no pairs of kinds A and B; empty where there are or none were asked.
        interrupted: whether Ctrl-C ended the pass early.
        seconds: wall time.
    """

    out: Path
    pairs: dict[str, int]
    left_out: dict[str, int]
    tiles: int
    skipped: int
    failed_tiles: int
    complete: bool
    without_references: str
    interrupted: bool
    seconds: float


def run_compare(request: CompareRequest, note: Callable[[str], None]) -> CompareReport:
    """Compare the maps of a finished run pair by pair.

    Args:
        request: what is asked.
        note: told of what the user should know.

    Raises:
        RequestError: the request is wrong, there is no such run, or its pairs were compared otherwise.
        StorageFullError: there is no room left; finished tiles are whole.
    """
    started = time.monotonic()
    _check(request)
    with open_results(request.out, with_pairs=False) as results:  # before anything is made in its folder
        if not results.models or len(results) == 0:
            raise RequestError(f"{request.out} holds no usable image: its failures.csv says why")
    folder = RunFolder(request.out)
    with folder.locked(), open_results(request.out, with_pairs=False) as results:
        before = None
        if folder.compare_settings.is_file() and not request.overwrite:
            before = frozen_before(folder.compare_settings, "how its pairs were compared")
        frozen = _frozen(request, folder, results, before)
        if before is not None and (changed := differences(before, frozen)):
            raise RequestError(
                f"pairs of {request.out} were compared with other settings ({'; '.join(changed)}): ask for "
                "the same ones to go on, or throw them away with --overwrite"
            )
        settings = _settings(request, folder, results, frozen)
        plan = plan_pairs(results, settings, request.kinds, request.pairs, request.seed)
        folder.pairs.mkdir(exist_ok=True)
        if before is None:
            _throw_away(folder, results)
            write_settings(folder.compare_settings, asdict(request), frozen)
        report, finished = _compute(folder, plan, CompareFunction(settings), request.workers, note)
        rewrite_index(folder, results)
        done = finished.union(report.done)
        there = [tile for tile in plan if tile.number in done]
        return CompareReport(
            out=request.out,
            pairs=dict(_sums((tile.pairs.kind, len(tile.pairs)) for tile in there)),
            left_out=dict(_sums(item for tile in there for item in tile.pairs.excluded.items())),
            tiles=len(report.done),
            skipped=len(finished),
            failed_tiles=len(report.failed),
            complete=results.complete,
            without_references=_without_references(request, settings, results),
            interrupted=report.interrupted,
            seconds=round(time.monotonic() - started, 3),
        )


def _check(request: CompareRequest) -> None:
    """Raise a RequestError where an option makes no sense."""
    for kind in request.kinds:
        if kind not in KINDS:
            raise RequestError(f"--kinds must name some of {','.join(KINDS)}, got {kind!r}")
    if not request.kinds:
        raise RequestError(f"--kinds must name at least one of {','.join(KINDS)}")
    for percent in request.emd_percents:
        if percent not in THRESHOLDS:
            allowed = ",".join(map(str, THRESHOLDS))
            raise RequestError(f"--emd-percents must name some of {allowed}, got {percent}")
    least = {
        "pairs": (request.pairs, 1),
        "emd-pairs": (request.emd_pairs, 0),
        "threads": (request.threads, 1),
    }
    least |= {"workers": (request.workers, 0), "seed": (request.seed, 0)}
    for name, (value, smallest) in least.items():
        if value is not None and value < smallest:
            raise RequestError(f"--{name} must be at least {smallest}, got {value}")
    if not 0 < request.tolerance < 1:
        raise RequestError(f"--tolerance must lie between 0 and 1, got {request.tolerance}")
    check_device(request.device)


def _frozen(
    request: CompareRequest, folder: RunFolder, results: Results, before: dict[str, Any] | None
) -> dict[str, Any]:
    """What the values of pairs depend on."""
    threads = request.threads
    if threads is None:  # a comparison that goes on keeps them, whatever the number of workers is now
        threads = before["threads"] if before else default_threads(request.workers)
    return {
        "run": settings_sha256(read_frozen(folder.settings)),
        "parts": parts_sha256(digest for _, digest in results.parts),
        "pairs": "all" if request.pairs is None else request.pairs,
        "emd_pairs": "all" if request.emd_pairs is None else request.emd_pairs,
        "emd_percents": sorted(set(request.emd_percents)),
        "tolerance": request.tolerance,
        "seed": request.seed,
        "threads": threads,
        "device": device_name(request.device),
        "versions": package_versions(),
        "code": code_sha256(),
    }


def _settings(
    request: CompareRequest, folder: RunFolder, results: Results, frozen: dict[str, Any]
) -> CompareSettings:
    each = all(
        results.each(model, tap) is not None for model in results.models for tap in results.taps(model)
    )
    return CompareSettings(
        root=request.out,
        emd_pairs=request.emd_pairs,
        emd_percents=request.emd_percents,
        tolerance=request.tolerance,
        device=request.device,
        threads=frozen["threads"],
        aligned=str(read_frozen(folder.settings).get("align", "none")),
        each=each,
        run=settings_sha256(frozen),
    )


def _compute(
    folder: RunFolder,
    plan: Sequence[PairTile],
    function: CompareFunction,
    workers: int,
    note: Callable[[str], None],
) -> tuple[RunReport, set[int]]:
    finished = {tile.number for tile in plan if _is_finished(folder, tile, function.settings.run, note)}
    left = [tile for tile in plan if tile.number not in finished]
    total = sum(tile.amount for tile in plan)
    done = total - sum(tile.amount for tile in left)
    try:
        with WorkProgress("pairs", total, done=done, unit="pairs") as progress:
            report = run(
                left,
                function,
                TileSink(folder.pairs),
                driver=LocalDriver(workers),
                listener=progress,
            )
    finally:
        function.close()
    return report, finished


def _throw_away(folder: RunFolder, results: Results) -> None:
    """Remove the pairs of another comparison; the index first, which cannot be read without them."""
    old = tile_files(folder.pairs)
    folder.compare_settings.unlink(missing_ok=True)
    if old:
        rewrite_index(folder, results)
    for path in old:
        path.unlink()
    for name in ("similarity", "paper", "verdicts"):  # which say what those pairs were
        (folder.tables / f"{name}.csv").unlink(missing_ok=True)


def _is_finished(folder: RunFolder, tile: PairTile, run_sha256: str, note: Callable[[str], None]) -> bool:
    """Whether a tile is there, whole and of these settings; what was damaged later is made again."""
    path = tile_file(folder.pairs, tile.model, tile.name, tile.pairs.kind, tile.other_model, tile.index)
    if not path.is_file():
        return False
    try:
        table, found = read_tile(path)
        mine = tile.model, tile.name, tile.pairs.kind, tile.other_model, tile.index, tile.count, tile.amount
        theirs = table.model, table.tap, table.kind, table.other_model, found.number, found.count, len(table)
        if found.run != run_sha256 or mine != theirs:
            raise PartError(f"{path.name} is of another comparison")
    except PartError as exc:
        note(f"{exc}: it is computed again")
        return False
    return True


def _without_references(request: CompareRequest, settings: CompareSettings, results: Results) -> str:
    asked = [kind for kind in OF_REFERENCES if kind in request.kinds]
    stored = settings.each or all(results.each_pairs(model, FUSED) is not None for model in results.models)
    if not asked or stored:
        return ""
    policy = results.setting(results.models[0], "references")
    return (
        f"no pairs of kind {' and '.join(asked)}: they need maps of single references, which "
        f"`leamfast batch --references each` or mean-map makes and this run (--references {policy}) has not"
    )


def _sums(items: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for name, number in items:
        total[name] += number
    return total

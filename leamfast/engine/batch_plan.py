"""What a run would do, take and need, from the request and a short measurement; nothing is written."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from leamfast.engine.batch import BatchFunction
from leamfast.engine.estimate import Duration, Measurement, duration, efficiency, passes
from leamfast.engine.maps import MapSettings
from leamfast.engine.plan import Shard
from leamfast.engine.prepare import Prepared, check_folder, prepare, read_data, warn_of_taps
from leamfast.engine.request import BatchRequest
from leamfast.engine.sample import PIECES, sample_pieces
from leamfast.engine.site import LocalSite
from leamfast.errors import RequestError
from leamfast.models.devices import device_name
from leamfast.store.part import Part, part_image
from leamfast.store.settings import differences, read_frozen
from leamfast.store.sizes import folder_bytes, part_sizes

__all__ = ["BatchPlan", "PlannedModel", "plan_batch"]


@dataclass(frozen=True)
class PlannedModel:
    """A model as a run would use it."""

    name: str
    architecture: str
    input_size: int
    backend: str
    taps: tuple[str, ...]


@dataclass(frozen=True)
class BatchPlan:
    """What a run would do.

    Attributes:
        out: the result folder.
        images: listed by the data set.
        identities: people.
        shards: how many; `finished_shards`: those that a run with --resume finds.
        shard_images: images of the smallest, the median and the largest one.
        largest_identity: its name; `largest_identity_images`: how many images it has.
        models: the models, with taps and backends as resolved.
        device: what was measured on; `threads`: of one process.
        sample_images: images that were measured; `usable`: those of them that the run could use.
        images_per_second: of one process, while it computes.
        workers: how many work at the same time; `efficiency`: the share of its speed that each is assumed
            to keep beside the others.
        time: of all shards that are not finished, without the start.
        setup_seconds: what loading, compiling and the first pass took here.
        bytes: of the whole result folder; `bytes_there`: of the parts that are finished.
        bytes_free: where the folder is or would be; `fits`: whether that is enough.
    """

    out: Path
    images: int
    identities: int
    shards: int
    finished_shards: int
    shard_images: dict[str, float]
    largest_identity: str
    largest_identity_images: int
    models: tuple[PlannedModel, ...]
    device: str
    threads: int
    sample_images: int
    usable: int
    images_per_second: float
    workers: int
    efficiency: float
    time: Duration
    setup_seconds: float
    bytes: int
    bytes_there: int
    bytes_free: int
    fits: bool


def plan_batch(request: BatchRequest, note: Callable[[str], None], workers: int) -> BatchPlan:
    """Measure a few images and say what the whole run would take.

    Args:
        request: what would be asked of `run_batch`.
        note: told of what the user should know.
        workers: how many compute at the same time.

    Raises:
        RequestError: the run would be refused.
    """
    started = time.monotonic()
    folder = check_folder(request)
    before = read_frozen(folder.settings) if folder.settings.is_file() else None
    prepared = prepare(request, read_data(request, note), LocalSite(request), before, note)
    if before is not None and (
        changed := differences(_without_place(before), _without_place(prepared.frozen))
    ):
        raise RequestError(
            f"result folder {request.out} was made with other settings ({'; '.join(changed)}): "
            "ask for the same ones to go on, or choose another --out"
        )
    warn_of_taps(prepared, note)
    plan, maps = prepared.plan, prepared.settings.maps
    function = prepared.function
    if function.finding is not None:  # as for pictures that were never searched; and nothing is kept
        function.finding = replace(function.finding, cache=None)
    pieces = sample_pieces(plan, maps.batch_size)
    function(pieces[0])
    setup = time.monotonic() - started
    measured, parts = _measure(function, pieces, maps)
    usable = sum(part.rows for part in parts)
    sample = sum(piece.images for piece in pieces)

    finished = set(folder.finished(len(plan)))
    there = sum(folder.part(number).stat().st_size for number in finished)
    size = _folder_bytes(plan, pieces, parts, usable / sample, maps.max_references)
    free = shutil.disk_usage(_existing(request.out)).free
    images = [shard.images for shard in plan if not shard.closes]
    people: Counter[str] = Counter()
    for shard in plan:
        people.update({identity.name: len(identity.entries) for identity in shard.identities})
    largest, largest_images = people.most_common(1)[0]
    left = [_passes(shard, maps) for shard in plan if shard.number not in finished]
    return BatchPlan(
        out=request.out,
        images=sum(images),
        identities=sum(shard.persons for shard in plan),
        shards=len(plan),
        finished_shards=len(finished),
        shard_images={"smallest": min(images), "median": median(images), "largest": max(images)},
        largest_identity=largest,
        largest_identity_images=largest_images,
        models=_models(prepared),
        device=device_name(prepared.settings.device),
        threads=prepared.settings.threads,
        sample_images=sample,
        usable=usable,
        images_per_second=sum(m.images for m in measured) / sum(m.seconds for m in measured),
        workers=workers,
        efficiency=efficiency(workers),
        time=duration(measured, left, workers),
        setup_seconds=setup,
        bytes=size,
        bytes_there=there,
        bytes_free=free,
        fits=size - there <= free,
    )


def _without_place(frozen: Mapping[str, Any]) -> dict[str, Any]:
    """Frozen settings but for the devices: the run may go on elsewhere, and this is measured here."""
    return {name: value for name, value in frozen.items() if name not in ("device", "finding_device")}


def _measure(
    function: BatchFunction, pieces: Sequence[Shard], maps: MapSettings
) -> tuple[list[Measurement], list[Part]]:
    """Each piece once, again from the first where there are few; and what came of each."""
    measured, parts = [], []
    for k in range(max(PIECES, len(pieces))):
        piece = pieces[k % len(pieces)]
        started = time.monotonic()
        part = function(piece)
        measured.append(Measurement(piece.images, _passes(piece, maps), time.monotonic() - started))
        if k < len(pieces):
            parts.append(part)
    return measured, parts


def _passes(shard: Shard, maps: MapSettings) -> int:
    counts = [len(identity.entries) for identity in shard.identities]
    return passes(counts, maps.references, maps.max_references, maps.batch_size)


def _folder_bytes(
    plan: Sequence[Shard],
    pieces: Sequence[Shard],
    parts: Sequence[Part],
    usable: float,
    max_references: int,
) -> int:
    """What the result folder takes, going by the largest of the measured parts."""
    largest = max(range(len(parts)), key=lambda k: parts[k].rows)
    part = parts[largest]
    sizes = part_sizes(part.arrays, len(part_image(part)))
    lengths = {array.dims[0]: len(array.values) for array in part.arrays.values()}
    drawn = _references(pieces[largest], max_references)
    counts = []
    for shard in plan:
        references = _references(shard, max_references) / max(1, drawn)
        counts.append({
            "row": round(shard.images * usable),
            "person": shard.persons,
            "each": round(lengths.get("each", 0) * references),
            "each_pair": round(lengths.get("each_pair", 0) * references),
        })  # fmt: skip
    return round(folder_bytes(sizes, counts))


def _references(shard: Shard, most: int) -> int:
    """References of all images of a shard."""
    sizes = [len(identity.entries) for identity in shard.identities]
    return sum(n * min(n - 1, most) for n in sizes)


def _models(prepared: Prepared) -> tuple[PlannedModel, ...]:
    return tuple(
        PlannedModel(
            of_model.name,
            prepared.architectures[of_model.name],
            of_model.size,
            of_model.backend,
            of_model.layers,
        )
        for of_model in prepared.settings.models
    )


def _existing(path: Path) -> Path:
    """The path or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())

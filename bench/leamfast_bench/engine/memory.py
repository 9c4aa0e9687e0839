"""Peak memory of a run's driver and of a worker by the number of images, when computing takes none."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leamfast.engine import batch_run
from leamfast.engine.batch import BatchFunction
from leamfast.engine.batch_settings import BatchSettings
from leamfast.engine.plan import Shard
from leamfast.engine.site import LocalSite, Resolved
from leamfast.models.face_model import FaceModel
from leamfast.store.part import Part
from leamfast.store.results import open_results
from leamfast_bench.engine.apart import apart, peak_resident
from leamfast_bench.engine.parts import shard_part
from leamfast_bench.engine.spells import WrongWorkError

__all__ = ["measure_memory", "stand_in_run"]

PHOTOS = 4  # of each person
SHARD = 100  # images, whatever the size of the data set


class StandIn(BatchFunction):
    """Makes small parts without looking at images; notes the peak of its process."""

    def __init__(self, settings: BatchSettings, folder: Path) -> None:
        super().__init__(settings, {})
        self.folder = folder

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"folder": self.folder}

    def __call__(self, shard: Shard, ahead: Shard | None = None) -> Part:
        part = shard_part(shard)
        (self.folder / str(os.getpid())).write_text(str(peak_resident()))
        return part


def measure_memory(counts: Sequence[int], folder: Path, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """Peaks for each number of images, each in processes of its own; the index is built too.

    Args:
        counts: of images, fewest first.
        folder: for runs.
        note: told of progress.
    """
    found = []
    for count in counts:
        found.append(apart(stand_in_run, count, folder))
        told = found[-1]
        if told["driver_bytes"] is not None:
            peaks = told["driver_bytes"] / 2**20, told["worker_bytes"] / 2**20
            note(f"  {count} images: driver {peaks[0]:.0f} MiB, worker {peaks[1]:.0f} MiB")
    return found


def stand_in_run(count: int, folder: Path, workers: int = 1) -> dict[str, Any]:
    """One run, in a process in which nothing else will be done: its functions are replaced.

    Args:
        count: images.
        folder: takes what is written, and is left empty.
        workers: worker processes; 0 computes here.

    Raises:
        WrongWorkError: the run does not hold all images, each once.
    """
    with TemporaryDirectory(dir=folder) as name:
        peaks, data, out = Path(name) / "peaks", Path(name) / "manifest.csv", Path(name) / "run"
        peaks.mkdir()
        with data.open("w") as file:  # line by line: what is held here would count as the run's
            file.write("path,identity\n")
            file.writelines(f"{path},p{path[:6]}\n" for path in _names(count))

        class Site(LocalSite):
            def resolve(self, settings: BatchSettings, models: Sequence[FaceModel], *rest: Any) -> Resolved:
                resolved = tuple(replace(model, backend="eager") for model in settings.models)
                settings = replace(settings, models=resolved)
                empty: Mapping[str, Mapping[str, Sequence[str]]] = {}
                return Resolved(settings, StandIn(settings, peaks), empty)

        request = batch_run.BatchRequest(
            data, out, ("demo",), align="none", threads=1, workers=workers, shard_images=SHARD
        )
        real, batch_run.LocalSite = batch_run.LocalSite, Site  # type: ignore[misc]
        before = peak_resident()
        try:
            with redirect_stderr(StringIO()):  # progress that is of no interest here
                report = batch_run.run_batch(request, note=lambda text: None)
        finally:
            batch_run.LocalSite = real  # type: ignore[misc]
        peak = peak_resident()
        with open_results(out) as results:
            stored = results.text("image/path").tolist()
            persons = len(results.text("identity/name"))
        if stored != list(_names(count)) or persons != -(-count // PHOTOS) or report.failed_shards:
            raise WrongWorkError(f"a run of {count} images holds {len(stored)} of {persons} people")
        worker = max((int(file.read_text()) for file in peaks.iterdir()), default=None) if peak else None
        return {
            "images": count,
            "shards": report.shards,
            "seconds": report.seconds,
            "before_bytes": before,
            "driver_bytes": peak,
            "worker_bytes": worker,
        }


def _names(count: int) -> Iterator[str]:
    return (f"{image // PHOTOS:06d}/{image % PHOTOS}.png" for image in range(count))

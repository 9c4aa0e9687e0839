"""`leamfast align` in one process and in two: photos a second, once all of them work.

Starting a process, importing and loading a detector take seconds, whatever the number of photos. So each
process first crops a shard that does not count and waits until all have come so far, and only then the clock
starts; what went before is given by itself.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leamfast.datasets.formats import read_manifest
from leamfast.engine.align import AlignedShard, AlignFunction, AlignSettings, CropSink
from leamfast.engine.align_run import shard_images
from leamfast.engine.crop_names import folder_names
from leamfast.engine.local import LocalDriver
from leamfast.engine.plan import Shard, plan_shards
from leamfast.engine.run import StopFlag
from leamfast.errors import RequestError
from leamfast_bench.faces.environment import environment
from leamfast_bench.maps.timing import spread_of

__all__ = ["PROCESSES", "Together", "measure_processes"]

PROCESSES = (1, 2)
PATIENCE = 180.0  # seconds that a process waits for the others to start


class Together:
    """An align function that begins, in each process, when all processes are ready.

    Args:
        function: the real one.
        folder: empty; each process that is ready leaves a file there.
        processes: how many there will be.
        warm: a shard that each computes before it is ready.
    """

    def __init__(self, function: AlignFunction, folder: Path, processes: int, warm: Shard) -> None:
        self.function, self.folder, self.processes, self.warm = function, folder, processes, warm
        self.ready = False

    def __call__(self, shard: Shard, ahead: Shard | None = None) -> AlignedShard:
        if not self.ready:
            self.function(self.warm)
            (self.folder / str(os.getpid())).touch()
            until = time.monotonic() + PATIENCE
            while len(list(self.folder.iterdir())) < self.processes:
                if time.monotonic() > until:
                    raise TimeoutError(f"fewer than {self.processes} processes have started")
                time.sleep(0.002)
            self.ready = True
        return self.function(shard, ahead)

    @property
    def began(self) -> float:
        """When the last process was ready."""
        return max(file.stat().st_mtime for file in self.folder.iterdir())


def measure_processes(
    detector: str,
    photos: Path,
    folder: Path,
    *,
    rounds: int,
    threads: int,
    device: str,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Photos a second by the number of processes, after all were found to write the same bytes.

    Args:
        detector: as `leamfast align` takes it.
        photos: folder of the photos.
        folder: empty, for what is written.
        rounds: how often each is timed, in turn.
        threads: of each process.
        device: where the detector computes.
        note: told of progress.

    Raises:
        RequestError: there are too few people for so many processes.
    """
    manifest = read_manifest(photos)
    plan = plan_shards(manifest, shard_images(len(manifest.entries)))
    if len(plan) < max(PROCESSES):
        raise RequestError(
            f"--data must hold photos of several people, got {len(manifest.identities)} of them, which "
            f"cannot be shared among {max(PROCESSES)} processes"
        )
    names = folder_names(manifest.identities)
    settings = AlignSettings(
        manifest.root.resolve(), names, {}, detector, "arcface", "one", 112, threads, device
    )

    def run(processes: int) -> tuple[float, float, dict[str, str]]:
        """Seconds to the start, seconds from there, and hashes of what was written."""
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("ready", "out", "records"):
            (folder / part).mkdir(parents=True)
        together = Together(AlignFunction(settings), folder / "ready", processes, plan[0])
        asked = ended = time.time()
        sink = CropSink(folder / "out", folder / "records", "")
        for event in LocalDriver(processes)(plan, together, sink, StopFlag()):
            if event.error:
                raise RuntimeError(f"shard {event.shard.number}: {event.error}")
            ended = time.time()
        return together.began - asked, ended - together.began, _hashes(folder)

    count = len(manifest.entries)
    about = {"detector": detector.partition("=")[0], "photos": count, "shards": len(plan)}
    with environment(LEAMFAST_FACE_CACHE="off", OPENCV_FOR_THREADS_NUM=str(threads)):
        first = {processes: run(processes)[2] for processes in PROCESSES}
        wanted = first[PROCESSES[0]]
        crops = sum(name.endswith(".png") for name in wanted)
        about |= {"crops": crops, "equal": all(found == wanted for found in first.values()), "rows": []}
        if not about["equal"] or not crops:
            note(f"  {about['detector']}: {'outputs differ' if crops else 'no crops'}, and nothing is timed")
            return about | {"ratio": None}
        times: dict[int, list[tuple[float, float]]] = {processes: [] for processes in PROCESSES}
        for turn in range(rounds):
            for processes in PROCESSES if turn % 2 == 0 else PROCESSES[::-1]:
                start, seconds, found = run(processes)
                if found != wanted:
                    raise RuntimeError("outputs differ from one run to the next")
                times[processes].append((start, seconds))
                note(f"  {about['detector']}, {processes} processes: {count / seconds:.1f} photos/s")
    for processes, measured in times.items():
        low, middle, high = spread_of([count / seconds for _, seconds in measured])
        start = spread_of([start for start, _ in measured])[1]
        about["rows"].append(
            {
                "processes": processes,
                "photos_per_second": middle,
                "quartiles": [low, high],
                "start_seconds": start,
            }
        )
    one, *_, most = about["rows"]
    return about | {"ratio": most["photos_per_second"] / one["photos_per_second"]}


def _hashes(folder: Path) -> dict[str, str]:
    """Hash of every crop and record."""
    files = [file for part in ("out", "records") for file in (folder / part).rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

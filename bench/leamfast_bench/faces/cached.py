"""The same run twice, with empty caches and with what the first one left: time before the first map."""

import multiprocessing as mp
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.faces.selection import Detection, Detector
from leamfast_bench.faces.environment import environment

__all__ = ["measure_cached", "timed_run"]


def measure_cached(
    request: BatchRequest, caches: Path, repeats: int, note: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A run with empty caches, and runs with filled ones, each in a process of its own.

    Args:
        request: the run; its folder is removed after each.
        caches: folder for the caches; the user's are left alone.
        repeats: runs with filled caches.
        note: told of progress.

    Returns:
        For each run: its seconds, those before the first shard and before the first map, images, and pictures
        that were searched for faces.
    """
    found = []
    with environment(XDG_CACHE_HOME=str(caches)):
        for number in range(1 + repeats):
            with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as process:
                measured = process.submit(timed_run, request).result()
            shutil.rmtree(request.out)
            measured["cache"] = "filled" if number else "empty"
            note(
                f"  cache {measured['cache']}: {measured['seconds']:.1f} s, {measured['to_first_map']:.2f} s "
                f"before the first map, {measured['searched']} pictures searched"
            )
            found.append(measured)
    return found


def timed_run(request: BatchRequest) -> dict[str, Any]:
    """One run, in a process in which nothing else will be done: its functions are replaced."""
    from leamfast.engine import batch
    from leamfast.faces.detection import DetectorSpec

    times: dict[str, float] = {}
    counting = _Counting()
    map_rows, shard, load = batch.map_rows, batch.BatchFunction.__call__, DetectorSpec.load

    def first_map(*args: Any, **options: Any) -> Any:
        times.setdefault("map", time.perf_counter())
        return map_rows(*args, **options)

    def first_shard(self: batch.BatchFunction, *args: Any) -> Any:
        times.setdefault("shard", time.perf_counter())
        return shard(self, *args)

    batch.map_rows = first_map
    batch.BatchFunction.__call__ = first_shard  # type: ignore[method-assign]
    DetectorSpec.load = lambda self, device="cpu": counting.watch(load(self, device))  # type: ignore[method-assign]
    began = time.perf_counter()
    report = run_batch(request, note=lambda text: None)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "to_first_shard": times["shard"] - began,
        "to_first_map": times["map"] - began,
        "share_before_first_map": (times["map"] - began) / seconds,
        "images": report.images,
        "searched": counting.pictures,
    }


class _Counting:
    """A detector that counts the pictures which are searched."""

    def __init__(self) -> None:
        self.pictures = 0

    def watch(self, detector: Detector) -> "_Counting":
        self.detector = detector
        return self

    def detect(self, image: np.ndarray) -> list[Detection]:
        return self.detect_many([image])[0]

    def detect_many(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        self.pictures += len(images)
        return self.detector.detect_many(images)

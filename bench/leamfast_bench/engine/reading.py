"""How long one map of a run takes to be read: from its part, and through the index over many parts."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from leamfast.faces.regions import REGIONS
from leamfast.store.index import write_index
from leamfast.store.part import write_part
from leamfast.store.results import open_results
from leamfast.store.run_folder import RunFolder
from leamfast_bench.engine.parts import MODEL, make_part
from leamfast_bench.engine.spells import WrongWorkError
from leamfast_bench.maps.timing import spread_of

__all__ = ["COLD", "INDEX", "INDEX_OPENED", "PART", "PART_OPENED", "measure_reading"]

TAP, SIDE = "layer2", 28
PART, PART_OPENED = "open part", "part, opened for each map"
INDEX, INDEX_OPENED = "open run", "run, opened for each map"
COLD = "run, opened for each map, nothing in the system's cache"


def measure_reading(
    folder: Path, parts: int, rows: int, reads: int, note: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds of a map, each of another image, after all were found to be those that were written.

    Args:
        folder: empty; becomes a run.
        parts: in it.
        rows: images in each.
        reads: maps that are read in each way; a tenth of them where files are opened for each.
        note: told of progress.
    """
    run = RunFolder(folder)
    run.shards.mkdir()
    wanted = np.empty((parts * rows, SIDE, SIDE), np.float16)
    for number in range(parts):
        part = make_part(number, rows, {TAP: SIDE}, labels=False)
        wanted[number * rows : (number + 1) * rows] = part.arrays[f"model/{MODEL}/layer/{TAP}/map"].values
        write_part(run.part(number), part)
    began = time.perf_counter()
    write_index(folder, [run.part(number) for number in range(parts)], parts, REGIONS)
    about = {
        "parts": parts,
        "images": parts * rows,
        "side": SIDE,
        "index_seconds": time.perf_counter() - began,
    }
    images = np.random.default_rng(0).permutation(parts * rows)
    few = images[: max(2, reads // 10)]
    found: list[dict[str, Any]] = []

    def measure(name: str, which: np.ndarray, read: Callable[[int], np.ndarray], before: Any = None) -> None:
        seconds = []
        for image in map(int, which):
            if before is not None:
                before()
            start = time.perf_counter()
            values = read(image)
            seconds.append(time.perf_counter() - start)
            if not np.array_equal(values, wanted[image]):
                raise WrongWorkError(f"{name}: the map of image {image} is not the one that was written")
        low, middle, high = spread_of(seconds)
        found.append({"row": name, "reads": len(which), "seconds": middle, "quartiles": [low, high]})
        note(f"  {name}: {1e3 * middle:.2f} ms")

    path = f"model/{MODEL}/layer/{TAP}/map"
    _open_parts(run, parts, lambda held: _of_parts(held, rows, path, images[:reads], measure))

    def from_part(image: int) -> np.ndarray:
        with h5py.File(run.part(image // rows), "r") as file:
            return file[path][image % rows]

    def from_run(image: int) -> np.ndarray:
        with open_results(folder) as results:
            return results.map(MODEL, TAP, slice(image, image + 1))[0]

    def forget() -> None:
        for file in [run.index, *run.shards.iterdir()]:
            _forget(file)

    measure(PART_OPENED, few, from_part)
    with open_results(folder) as results:
        measure(INDEX, images[:reads], lambda image: results.map(MODEL, TAP, slice(image, image + 1))[0])
    measure(INDEX_OPENED, few, from_run)
    measure(COLD, few, from_run, forget)
    return about | {"rows": found}


def _open_parts(run: RunFolder, parts: int, use: Callable[[Mapping[int, h5py.File]], None]) -> None:
    held = {number: h5py.File(run.part(number), "r") for number in range(parts)}
    try:
        use(held)
    finally:
        for file in held.values():
            file.close()


def _of_parts(
    held: Mapping[int, h5py.File], rows: int, path: str, images: np.ndarray, measure: Callable[..., None]
) -> None:
    measure(PART, images, lambda image: held[image // rows][path][image % rows])


def _forget(file: Path) -> None:
    """Drop a file from the system's cache, where it lets us."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)

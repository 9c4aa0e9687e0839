"""Megabytes of parts a second that processes make durable, beside the same bytes written as they are."""

import multiprocessing as mp
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from leamfast.store.part import Part, read_part, write_part
from leamfast_bench.engine.parts import make_part
from leamfast_bench.engine.spells import WrongWorkError
from leamfast_bench.maps.timing import spread_of

__all__ = ["PARTS", "PLAIN", "check_equal", "measure_storing"]

PARTS, PLAIN = "parts", "plain files"
MB = 1e6
PATIENCE = 120.0


def measure_storing(
    folder: Path, writers: Sequence[int], rows: int, each: int, rounds: int, note: Callable[[str], None]
) -> dict[str, Any]:
    """Rates by the number of writing processes; a part was read again and found equal first.

    Args:
        folder: empty, on the disk that is measured.
        writers: numbers of processes.
        rows: images in a part.
        each: parts that each process writes.
        rounds: in which all are timed, in turn.
        note: told of progress.
    """
    part = make_part(0, rows)
    path = folder / "part-00000.h5"
    write_part(path, part)
    check_equal(read_part(path), part)
    size = path.stat().st_size
    path.unlink()
    seconds: dict[tuple[str, int], list[float]] = {
        (what, count): [] for count in writers for what in (PARTS, PLAIN)
    }
    for turn in range(rounds):
        order = list(seconds) if turn % 2 == 0 else list(seconds)[::-1]
        for what, count in order:
            seconds[what, count].append(_timed(folder, what, count, rows, each, size))
    found = []
    for (what, count), times in seconds.items():
        low, middle, high = spread_of([count * each * size / MB / time for time in times])
        found.append({"row": what, "writers": count, "mb_per_second": middle, "quartiles": [low, high]})
        note(f"  {what}, {count} writers: {middle:.0f} MB/s")
    return {"part_bytes": size, "images": rows, "parts": each, "rows": found}


def check_equal(found: Part, wanted: Part) -> None:
    """All that is in a part is what was to be written.

    Raises:
        WrongWorkError: something is not.
    """
    if set(found.arrays) != set(wanted.arrays):
        raise WrongWorkError(f"arrays {sorted(set(found.arrays) ^ set(wanted.arrays))} are in one part only")
    for name, array in wanted.arrays.items():
        if not np.array_equal(found.arrays[name].values, array.values):
            raise WrongWorkError(f"{name} was read with other values than were written")


def _timed(folder: Path, what: str, count: int, rows: int, each: int, size: int) -> float:
    """Seconds from when all writers are ready to when the last has written all; files are removed."""
    context = mp.get_context("spawn")
    barrier, times = context.Barrier(count + 1), context.Queue()
    processes = [
        context.Process(target=_write, args=(folder, what, number, rows, each, size, barrier, times))
        for number in range(count)
    ]
    for process in processes:
        process.start()
    try:
        barrier.wait(PATIENCE)
        began = time.monotonic()
        ended = max(times.get(timeout=PATIENCE) for _ in processes)
    finally:
        for process in processes:
            process.join(1)
            process.kill()
    files = list(folder.iterdir())
    if sorted(file.stat().st_size for file in files) != [size] * (count * each):
        raise WrongWorkError(f"{len(files)} files were written, of {count * each}, or some are not whole")
    for file in files:
        file.unlink()
    return ended - began


def _write(
    folder: Path, what: str, number: int, rows: int, each: int, size: int, barrier: Barrier, times: Any
) -> None:
    """A writing process; the monotonic clock is one for all processes of a machine."""
    part = make_part(0, rows) if what == PARTS else None
    content = os.urandom(size) if part is None else b""
    barrier.wait(PATIENCE)
    for turn in range(each):
        path = folder / f"part-{number}{turn:04d}.h5"
        if part is None:
            _write_plainly(path, content)
        else:
            write_part(path, part)
    times.put(time.monotonic())


def _write_plainly(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

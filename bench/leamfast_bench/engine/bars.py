"""What the project has set itself, and what was found of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from leamfast_bench.engine.reading import INDEX, PART
from leamfast_bench.engine.scaling import ALONE
from leamfast_bench.engine.storing import PARTS

__all__ = ["bars"]

SCALING = 1.85  # times what one worker does, by two, at least
OVERHEAD = 3.0  # % of a shard, at most
START, OURS = 20.0, 2.0  # seconds to the first piece, and of these ours, at most
BUSY = 95.0  # % of their time that GPUs compute, at least
GROWTH = 1.10  # of memory from the fewest images to the most, at most
STORED = 400.0  # MB/s, at least
READ = {PART: 1.0, INDEX: 3.0}  # ms a map, at most

Found = Mapping[str, Any]
Bar = dict[str, Any]


def bars(results: Found) -> list[Bar]:
    """Each with what was found, what was asked, `least` or `most`, and whether it is met.

    Args:
        results: of the benchmark, in its full form.
    """
    return [
        *_scaling(results),
        *_overhead(results),
        *_starting(results),
        *_gpus(results),
        *_memory(results),
        *_store(results),
    ]


def _scaling(results: Found) -> Iterator[Bar]:
    for row in results["scaling"]["rows"] if results["scaling"] else ():
        if row["workers"] > 1 and row["place"] != ALONE:
            what = f"{row['place']}: images a second of {row['workers']}, times those of one"
            yield _bar(what, row["over_one"], SCALING, "least")
    for row in results["overhead"]:
        what = f"{row['place']}: naps of two, times those of one"
        yield _bar(what, row["scaling"], SCALING, "least")


def _overhead(results: Found) -> Iterator[Bar]:
    for row in results["overhead"]:
        what = f"{row['place']}: % of a shard of {row['shard_seconds']:g} s spent beside it"
        yield _bar(what, 100 * row["shards"], OVERHEAD, "most")


def _starting(results: Found) -> Iterator[Bar]:
    found = results["starting"]
    if found:
        yield _bar("Ray of our own: s to the first piece", found["seconds"], START, "most")
        yield _bar("of these ours, s", found["ours_seconds"], OURS, "most")


def _gpus(results: Found) -> Iterator[Bar]:
    found = results["gpus"]
    if found:
        yield _bar(f"{found['gpus']} GPUs that are none: % busy", 100 * found["busy"], BUSY, "least")


def _memory(results: Found) -> Iterator[Bar]:
    few, *_, many = results["memory"]
    for who in ("driver", "worker"):
        if many[f"{who}_bytes"]:
            what = f"peak memory of a {who} at {many['images']} images, times that at {few['images']}"
            yield _bar(what, many[f"{who}_bytes"] / few[f"{who}_bytes"], GROWTH, "most")


def _store(results: Found) -> Iterator[Bar]:
    rows = [row for row in results["storing"]["rows"] if row["row"] == PARTS]
    best = max(rows, key=lambda row: row["mb_per_second"])
    yield _bar(f"{best['writers']} writers of parts: MB/s", best["mb_per_second"], STORED, "least")
    for row in results["reading"]["rows"]:
        if row["row"] in READ:
            what = f"a map, {row['row']}: ms"
            yield _bar(what, 1e3 * row["seconds"], READ[row["row"]], "most")


def _bar(what: str, found: float, asked: float, which: str) -> Bar:
    met = found >= asked if which == "least" else found <= asked
    return {"what": what, "found": found, "asked": asked, "which": which, "met": met}

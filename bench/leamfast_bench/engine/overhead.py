"""What the engine adds to work of known time: between pieces, and by the number of workers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from leamfast_bench.engine.apart import apart
from leamfast_bench.engine.places import carried, napped
from leamfast_bench.engine.spells import gap_seconds, gaps_over_work, steady_rate

__all__ = ["SHARDS", "SHORT", "measure_overhead"]

SHARDS, SHORT = "shards", "short pieces"
WORKERS = 2


def measure_overhead(
    folder: Path,
    places: Sequence[str],
    shard_seconds: float,
    shards: int,
    rows: int,
    short_seconds: float,
    short: int,
    note: Callable[[str], None],
) -> list[dict[str, Any]]:
    """For each place: overhead of shards and of short pieces, and how many more two workers do than one.

    Args:
        folder: for what is written.
        places: where, of `PLACES`.
        shard_seconds: that a worker sleeps over a shard, before it makes a part.
        shards: of each of two workers.
        rows: images in the part of a shard.
        short_seconds: that a worker sleeps over a short piece, which makes no part.
        short: pieces of one worker, and of two together.
        note: told of progress.
    """
    found = []
    for place in places:
        row = apart(_of_place, folder, place, shard_seconds, shards, rows, short_seconds, short)
        note(
            f"  {place}: {100 * row['shards']:.2f} % of a shard of {shard_seconds:g} s, "
            f"{1e3 * row['gap_seconds']:.1f} ms a short piece; two workers {row['scaling']:.2f}x"
        )
        found.append({"place": place} | row)
    return found


def _of_place(
    folder: Path,
    place: str,
    shard_seconds: float,
    shards: int,
    rows: int,
    short_seconds: float,
    short: int,
) -> dict[str, Any]:
    with carried(place, WORKERS) as driver:

        def spells(workers: int, pieces: int, seconds: float, images: int) -> Any:
            with TemporaryDirectory(dir=folder) as name:
                where = Path(name)
                return napped(driver(workers, where), workers, pieces, seconds, images, where)

        long = spells(WORKERS, WORKERS * shards, shard_seconds, rows)
        one, two = (spells(workers, short, short_seconds, 0) for workers in (1, WORKERS))
    return {
        "shard_seconds": shard_seconds,
        "images": rows,
        "shards": gaps_over_work(long),
        "shard_gap_seconds": median(gap_seconds(long)),
        "short_seconds": short_seconds,
        "gap_seconds": median(gap_seconds(one)),
        "scaling": steady_rate(two) / steady_rate(one),
    }

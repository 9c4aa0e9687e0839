"""Images a second of `leamfast batch` by one worker and by two, beside runs of their own."""

import shutil
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from leamfast.datasets.synthetic import write_dataset
from leamfast_bench.engine.places import PLACES, RAY
from leamfast_bench.engine.spells import Spell, WrongWorkError, check_once, steady_rate
from leamfast_bench.engine.watched import start
from leamfast_bench.maps.timing import spread_of

__all__ = ["ALONE", "measure_scaling", "write_faces"]

ALONE = "runs of their own"
WORKERS = (1, 2)
PHOTOS = 4  # of each person


def write_faces(folder: Path, people: int, copies: int) -> Path:
    """A data set of people, each several times under other names, as drawing faces takes long."""
    drawn = folder / "drawn"
    write_dataset(drawn, identities=people, images=PHOTOS)
    lines = ["path,identity,label"]
    for copy in range(copies):
        for person in sorted(path.name for path in drawn.iterdir() if path.name.startswith("id")):
            shutil.copytree(drawn / person, folder / f"{copy}" / person)
            for image in sorted(path.name for path in (drawn / person).iterdir()):
                label = f"drawn/.labels/{person}/{image}"
                lines.append(f"{copy}/{person}/{image},{copy}-{person},{label}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def measure_scaling(
    data: Path, images: int, shard_images: int, rounds: int, folder: Path, note: Callable[[str], None]
) -> dict[str, Any]:
    """Rates by place and by the number of workers, one thread each; all places gave the same parts.

    Args:
        data: a manifest of faces.
        images: in it.
        shard_images: images in a shard.
        rounds: in which all are timed, in turn.
        folder: for results.
        note: told of progress.

    Returns:
        `rows`; `starts`: what the runs on Ray with most workers told of their times.

    Raises:
        WrongWorkError: images are missing, a shard was computed twice, or values differ.
    """
    numbers = count()

    def run(place: str, workers: int) -> tuple[list[Spell], list[dict[str, Any]]]:
        options: dict[str, Any] = {"data": data, "model": ["demo"], "align": "none", "threads": 1}
        options |= {"shard_images": shard_images}
        outs = [folder / f"run-{next(numbers)}" for _ in range(workers if place == ALONE else 1)]
        if place != ALONE:
            options |= {"workers": workers} | ({"address": "local"} if place == RAY else {})
        runs = [start(options | {"out": out}, folder) for out in outs]
        told = [run.result() for run in runs]
        for out in outs:
            shutil.rmtree(out)
        return _spells(told, images), told

    digests = run(ALONE, 1)[1][0]["digests"]  # and what is compiled once for all runs is there now
    rates: dict[tuple[str, int], list[float]] = {
        (place, workers): [] for place in (*PLACES, ALONE) for workers in WORKERS
    }
    walls: Mapping[tuple[str, int], list[float]] = {key: [] for key in rates}
    starts = []
    for turn in range(rounds):
        for place, workers in list(rates) if turn % 2 == 0 else list(rates)[::-1]:
            spells, told = run(place, workers)
            if any(one["digests"] != digests for one in told):
                raise WrongWorkError(f"{place}, {workers}: other values than those of a run by itself")
            if place != ALONE:
                check_once(spells, len(digests), workers)
            rates[place, workers].append(steady_rate(spells))
            walls[place, workers].append(max(one["seconds"] for one in told))
            if (place, workers) == (RAY, max(WORKERS)):
                starts += told
            note(f"  {place}, {workers}: {rates[place, workers][-1]:.1f} images/s")
    rows = []
    for (place, workers), measured in rates.items():
        low, middle, high = spread_of(measured)
        ratio = middle / median(rates[place, WORKERS[0]])
        row = {"place": place, "workers": workers, "images_per_second": middle, "quartiles": [low, high]}
        rows.append(row | {"over_one": ratio, "wall_seconds": median(walls[place, workers])})
    return {"images": images, "shards": len(digests), "rows": rows, "starts": starts}


def _spells(told: list[dict[str, Any]], images: int) -> list[Spell]:
    spells = []
    for number, run in enumerate(told):
        if run["images"] != images or run["failures"]:
            raise WrongWorkError(f"{run['images']} of {images} images were used, {run['failures']} failures")
        spells += [Spell(f"run {number} {event[0]}", *event[1:]) for event in run["events"]]
    return spells

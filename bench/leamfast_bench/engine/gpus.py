"""Share of time that four GPUs which are none are busy, when decoding and writing are real."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from leamfast.engine.cluster.connection import connected
from leamfast.engine.cluster.hands import Team
from leamfast.engine.run import Staged, run
from leamfast.store.part import Part, read_part, write_part
from leamfast_bench.engine.apart import apart
from leamfast_bench.engine.parts import make_part, part_bytes
from leamfast_bench.engine.places import Heard, workers_on
from leamfast_bench.engine.spells import WrongWorkError, busy_share, check_once, gap_seconds, spells_of
from leamfast_bench.engine.two_nodes import GPUS, two_nodes

__all__ = ["DeviceNaps", "Photos", "measure_gpus", "read_photo"]

SIDE = 112


@dataclass(frozen=True)
class Photos:
    """A piece: photos, and how long a device takes over them."""

    number: int
    files: tuple[Path, ...]
    seconds: float

    @property
    def amount(self) -> int:
        """Photos."""
        return len(self.files)

    @property
    def title(self) -> str:
        """What the reader knows it by."""
        return f"photos {self.number}"


class DeviceNaps:
    """Decodes and resizes photos, then sleeps in place of a device, then gives a part of `rows` images."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __getstate__(self) -> dict[str, int]:
        return {"rows": self.rows}  # the part is made where it is needed

    @cached_property
    def part(self) -> Part:
        """The part of every piece, up to its number and run."""
        return make_part(0, self.rows)

    def load(self, programs: object) -> None:
        """As models are loaded, before the first piece."""
        _ = self.part

    def prepare(self, piece: Photos) -> np.ndarray:
        """Crops (N, 112, 112, 3)."""
        return np.stack([read_photo(file) for file in piece.files])

    def compute(self, piece: Photos, prepared: np.ndarray) -> Part:
        """Sleep; what was prepared is told by a checksum in the place of the run."""
        time.sleep(piece.seconds)
        return Part(piece.number, self.part.arrays, self.part.groups, run=str(int(prepared.sum())))

    def __call__(self, piece: Photos, ahead: Photos | None = None) -> Part:
        return self.compute(piece, self.prepare(piece))


class PartFolder:
    """Keeps parts in a folder; a piece that is done twice is an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, part: Part) -> None:
        path = self.folder / f"part-{part.shard:05d}.h5"
        if path.exists():
            raise WrongWorkError(f"{path.name} is there already")
        write_part(path, part)


def read_photo(file: Path) -> np.ndarray:
    """A photo at 112x112."""
    pixels = cv2.imread(str(file))
    if pixels is None:
        raise WrongWorkError(f"{file.name} cannot be read")
    return cv2.resize(cv2.resize(pixels, (2 * SIDE, 2 * SIDE)), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def measure_gpus(
    photos: list[Path], each: int, pieces: int, seconds: float, rows: int, folder: Path, note: Callable
) -> dict[str, Any]:
    """How busy the devices were, after all parts were found whole and of the right photos.

    Args:
        photos: files.
        each: photos in a piece, taken from these in turn.
        pieces: for each GPU.
        seconds: that a device takes over a piece.
        rows: images in the part of a piece.
        folder: for parts.
        note: told of the result.
    """
    found = apart(_measure, photos, each, GPUS * pieces, seconds, rows, folder)
    note(f"  {GPUS} GPUs that are none: busy {100 * found['busy']:.1f} % of their time")
    return found


def _measure(
    photos: list[Path], each: int, pieces: int, seconds: float, rows: int, folder: Path
) -> dict[str, Any]:
    turns = [photos[at % len(photos)] for at in range(pieces * each)]
    plan = [
        Photos(number, tuple(turns[number * each : (number + 1) * each]), seconds) for number in range(pieces)
    ]
    function, heard = DeviceNaps(rows), Heard()
    assert isinstance(function, Staged)
    with (
        TemporaryDirectory(dir=folder) as name,
        two_nodes() as address,
        connected(address, 0, 0),
    ):
        import ray

        where = Path(name)
        team = Team(GPUS, GPUS, 1)
        try:
            driver = workers_on(team, where, ray.put({}))
            report = run(plan, function, PartFolder(where), driver=driver, listener=heard)
        finally:
            team.end()
        if report.failed:
            raise WrongWorkError(f"pieces failed: {report.failed}")
        spells = spells_of(heard.events)
        check_once(spells, pieces, GPUS)
        for piece in plan:
            part = read_part(where / f"part-{piece.number:05d}.h5")
            if part.shard != piece.number or part.run != str(int(function.prepare(piece).sum())):
                raise WrongWorkError(f"the part of {piece.title} is that of others")
    gaps = gap_seconds(spells)
    return {
        "gpus": GPUS,
        "pieces": pieces,
        "seconds": seconds,
        "photos": each,
        "part_bytes": part_bytes(function.part),
        "busy": busy_share(spells),
        "gap_seconds": float(np.median(gaps)),
        "longest_gap_seconds": max(gaps),
    }

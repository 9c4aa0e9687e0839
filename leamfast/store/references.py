"""Embeddings of a split identity: one file a slice, which the shards of all its slices read.

    picture/{position,fingerprint,name}    every image of the slice that could be decoded
    row/position                           those of them that can be used
    left_out/{position,reason}             images that were not touched, because workers died of them
    model/<name>/unit                      their unit embeddings, (row, D) float32, zeros where there is none

The files lie in `references/` of the run folder. They are written whole or not at all, and only kept so that
a run that goes on need not make them again: a finished run does without them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from leamfast.store.arrays import SCHEMA, Array, digest, read_array, write_array
from leamfast.store.memory_file import memory_file
from leamfast.store.part import DAMAGE, PartError, check_seal, datasets, open_part
from leamfast.store.run_folder import RunFolder
from leamfast.store.seal import write_sealed

__all__ = [
    "ReferenceFiles",
    "ReferencePart",
    "ReferenceSource",
    "References",
    "join_references",
    "read_references",
    "write_references",
]


@dataclass(frozen=True, eq=False)
class ReferencePart:
    """What is known of the images of one slice.

    Attributes:
        shard: number of the slice in the plan.
        pictures: position in the manifest of every image that could be decoded, (m,) int64, ascending.
        fingerprints: SHA-1 of their pixels, (m,) object array of hex text.
        names: of these images, (m,) object array.
        positions: of the usable images, (n,) int64, ascending.
        units: model -> unit embeddings of the usable images, (n, D) float32; zeros where there is none.
        left_out: position of every image of which workers died -> how.
        run: SHA-256 of the frozen settings of the run.
    """

    shard: int
    pictures: np.ndarray
    fingerprints: np.ndarray
    names: np.ndarray
    positions: np.ndarray
    units: Mapping[str, np.ndarray]
    left_out: Mapping[int, str] = field(default_factory=dict)
    run: str = ""


@dataclass(frozen=True, eq=False)
class References:
    """All usable images of a split identity, as its slices need them.

    Attributes:
        positions: in the manifest, (n,) int64, ascending.
        names: of the images, (n,) object array.
        units: model -> unit embeddings, (n, D) float32; zeros where there is none.
        repeats: position of every image that repeats a picture -> name of the first image with it.
        left_out: position of every image of which workers died -> how.
    """

    positions: np.ndarray
    names: np.ndarray
    units: Mapping[str, np.ndarray]
    repeats: Mapping[int, str]
    left_out: Mapping[int, str] = field(default_factory=dict)

    def name(self, position: int) -> str:
        """Name of the usable image at a position."""
        return str(self.names[np.searchsorted(self.positions, position)])


class ReferenceSource(Protocol):
    """Where a worker gets the references of one split identity from; small and picklable."""

    def __call__(self) -> References: ...


@dataclass(frozen=True)
class ReferenceFiles:
    """References of an identity from the files of its run folder, which every worker can read.

    Attributes:
        root: the run folder.
        start, slices: number of the identity's first slice, and how many it has.
        run: SHA-256 of the frozen settings of the run.
    """

    root: Path
    start: int
    slices: int
    run: str

    def __call__(self) -> References:
        """Read and join the files.

        Raises:
            PartError: one is missing, damaged, or another run's.
        """
        folder = RunFolder(self.root)
        numbers = range(self.start, self.start + self.slices)
        return join_references([read_references(folder.reference(n), n, self.run) for n in numbers])


def join_references(parts: Sequence[ReferencePart]) -> References:
    """What the slices of an identity know, as one; an image that repeats an earlier picture is not used."""
    pictures, fingerprints, names, positions = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("pictures", "fingerprints", "names", "positions")
    )
    first = dict(zip(fingerprints[::-1].tolist(), range(len(fingerprints))[::-1], strict=True))
    repeats = {
        int(pictures[n]): str(names[first[fingerprint]])
        for n, fingerprint in enumerate(fingerprints.tolist())
        if first[fingerprint] != n
    }
    kept = ~np.isin(positions, list(repeats))
    units = {}
    for model in parts[0].units:
        joined = np.concatenate([part.units[model] for part in parts])
        units[model] = joined if kept.all() else joined[kept]
    positions = positions[kept]
    left_out = {position: reason for part in parts for position, reason in part.left_out.items()}
    return References(positions, names[np.searchsorted(pictures, positions)], units, repeats, left_out)


def write_references(path: Path, part: ReferencePart) -> None:
    """Build the file of a slice in memory, then write it atomically."""
    arrays = {
        "picture/position": Array(part.pictures, ("picture",)),
        "picture/fingerprint": Array(part.fingerprints, ("picture",)),
        "picture/name": Array(part.names, ("picture",)),
        "row/position": Array(part.positions, ("row",)),
        "left_out/position": Array(np.array(list(part.left_out), np.int64), ("left_out",)),
        "left_out/reason": Array(np.array(list(part.left_out.values()), dtype=object), ("left_out",)),
        **{f"model/{name}/unit": Array(units, ("row", "dimension")) for name, units in part.units.items()},
    }
    about = {"shard": part.shard, "run": part.run}
    with memory_file(path.name) as file:
        for name, array in arrays.items():
            write_array(file, name, array)
        file.attrs.update(schema=SCHEMA, digest=digest(arrays, {"/": about}), complete=True, **about)
        file.flush()
        image = file.id.get_file_image()
    path.parent.mkdir(exist_ok=True)
    write_sealed(path, image)


def read_references(path: Path, shard: int, run: str) -> ReferencePart:
    """The file of a slice.

    Args:
        path: where it lies.
        shard: number of the slice.
        run: SHA-256 of the frozen settings of the run.

    Raises:
        PartError: it is missing, damaged, or another slice's or another run's.
    """
    with _opened(path) as file:
        try:
            arrays = {name: read_array(dataset) for name, dataset in datasets(file).items()}
            about = {"shard": int(file.attrs["shard"]), "run": str(file.attrs["run"])}
            intact = digest(arrays, {"/": about}) == file.attrs["digest"]
            part = ReferencePart(
                shard,
                pictures=arrays["picture/position"].values,
                fingerprints=arrays["picture/fingerprint"].values,
                names=arrays["picture/name"].values,
                positions=arrays["row/position"].values,
                units={name.split("/")[1]: a.values for name, a in arrays.items() if name.endswith("/unit")},
                left_out=dict(
                    zip(
                        arrays["left_out/position"].values.tolist(),
                        arrays["left_out/reason"].values.tolist(),
                        strict=True,
                    )
                ),
                run=run,
            )
        except DAMAGE as exc:
            raise PartError(f"holds something that cannot be read: {exc}") from exc
        if not intact:
            raise PartError("holds other values than were written: its digest differs")
        if about != {"shard": shard, "run": run}:
            raise PartError("is another shard's or another run's")
    return part


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The file opened for reading; says of what is wrong with it that no part of the results is meant."""
    name = f"references/{path.name}"
    try:
        check_seal(path)
        with open_part(path) as file:
            yield file
    except PartError as exc:
        raise PartError(f"{name} {str(exc).removeprefix(path.name).strip()}") from exc

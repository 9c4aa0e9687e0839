"""The crops of a finished run once more, from its photos and the transforms that it stored: no detector.

Pixel for pixel what `make_crops` made: the same decoding, the same warping. A photo that is no longer what
the run saw costs its own rows and no others.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from leamfast.datasets.decoding import DecodeError, decode_part, read_bytes
from leamfast.datasets.entry import Entry
from leamfast.datasets.manifest import Manifest
from leamfast.errors import RequestError
from leamfast.faces.alignment import FaceError, resize_crop, warp_image
from leamfast.store.results import Results
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import read_frozen

__all__ = ["Recrop", "RecropError", "Recropped"]

DENSE = 16
"""Rows are read with all between them where these are at most so many times as many."""


class RecropError(ValueError):
    """A row cannot be cropped as the run did; the message is the reason in a few plain words."""


@dataclass(frozen=True, eq=False)
class Recropped:
    """Crops of some rows.

    Attributes:
        images: size -> crops (n, size, size, 3), uint8 RGB, in the order asked; 0 where there is none.
        failures: row -> why it has no crops.
    """

    images: dict[int, np.ndarray]
    failures: dict[int, str]


@dataclass(frozen=True)
class _Photo:
    """What the run says of a row, and where its photo should be.

    Attributes:
        entry: of the data set; None where that has none of this name and person.
        sha1: of the bytes that the run read.
        transforms: size -> (2, 3).
    """

    entry: Entry | None
    sha1: str
    transforms: Mapping[int, np.ndarray]


class Recrop:
    """Makes crops of a finished run again.

    Args:
        results: the run, open; it is read in `crops` and stays the caller's to close.
        manifest: its data set, as `engine.prepare.read_data` gives it.
        root: folder that relative paths start from; the manifest's where None.

    Raises:
        RequestError: `run.toml` does not say how the run aligned.
    """

    def __init__(self, results: Results, manifest: Manifest, root: Path | None = None) -> None:
        settings = RunFolder(results.root).settings
        align = read_frozen(settings).get("align")
        if not isinstance(align, str):
            raise RequestError(f"{settings} does not say how faces were aligned: its [frozen] is damaged")
        self.aligned = align != "none"
        self.root = manifest.root if root is None else root
        self._results, self._entries = results, manifest.entries
        self._persons = results.text("identity/name")

    def crops(self, rows: Sequence[int] | np.ndarray, sizes: Sequence[int], threads: int = 1) -> Recropped:
        """Crops of rows: each photo is read and decoded once for all sizes.

        Args:
            rows: numbers of rows, in any order, with repetitions.
            sizes: sides of the crops in pixels, of those that the run made.
            threads: how many photos are decoded at the same time; no more of them lie in memory.

        Raises:
            RequestError: the run has no crops of such a size.
            ValueError: there is no such row.
        """
        wanted, places = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < len(self._results):
            beyond = wanted[0] if wanted[0] < 0 else wanted[-1]
            raise ValueError(f"rows must lie in 0..{len(self._results) - 1}, got {beyond}")
        photos = self._photos(wanted, sizes)
        images = {size: np.zeros((len(wanted), size, size, 3), np.uint8) for size in sizes}

        def fill(number: int) -> str | None:
            try:
                for size, crop in self._crop(photos[number]).items():
                    images[size][number] = crop
            except RecropError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(threads) as pool:
            reasons = list(pool.map(fill, range(len(wanted))))
        failures = {row: why for row, why in zip(wanted.tolist(), reasons, strict=True) if why is not None}
        if not np.array_equal(places, np.arange(len(wanted))):
            images = {size: crops[places] for size, crops in images.items()}
        return Recropped(images, failures)

    def _photos(self, rows: np.ndarray, sizes: Sequence[int]) -> list[_Photo]:
        file = self._results.file
        for size in sizes:
            if f"crop/{size}/transform" not in file:
                made = ", ".join(sorted(file.get("crop", ()), key=int)) or "none"
                raise RequestError(
                    f"{self._results.root} has no crops of {size} pixels: its models take {made}"
                )
        transforms = {size: _read(file[f"crop/{size}/transform"], rows) for size in sizes}
        names, digests = _read(file["image/path"], rows), _read(file["image/sha1"], rows)
        persons = self._persons[_read(file["image/identity"], rows)]
        of_part = "image/position" in file  # runs of an early version do not say
        positions = _read(file["image/position"], rows) if of_part else np.full(len(rows), -1)
        return [
            _Photo(
                self._entry(int(positions[k]), names[k], persons[k]),
                str(digests[k]),
                {size: of_size[k] for size, of_size in transforms.items()},
            )
            for k in range(len(rows))
        ]

    def _entry(self, position: int, name: str, person: str) -> Entry | None:
        """The entry at a position where it is the run's; otherwise the first one of that name and person."""
        if 0 <= position < len(self._entries):
            entry = self._entries[position]
            if (entry.name, entry.identity) == (name, person):
                return entry
        place = self._places.get((name, person))
        return None if place is None else self._entries[place]

    @cached_property
    def _places(self) -> dict[tuple[str, str], int]:
        """Name and person -> position of the first such entry, for a data set that has changed."""
        places: dict[tuple[str, str], int] = {}
        for place, entry in enumerate(self._entries):
            places.setdefault((entry.name, entry.identity), place)
        return places

    def _crop(self, photo: _Photo) -> dict[int, np.ndarray]:
        if photo.entry is None:
            raise RecropError("the data set has no such image of that person any more")
        try:
            data = read_bytes(self.root / photo.entry.path, photo.entry.spans)
            if hashlib.sha1(data, usedforsecurity=False).hexdigest() != photo.sha1:
                raise RecropError("the file has changed since the run")
            pixels = decode_part(data, photo.entry.rect)
            if self.aligned:
                return {size: warp_image(pixels, matrix, size) for size, matrix in photo.transforms.items()}
            return {size: resize_crop(pixels, size)[0] for size in photo.transforms}
        except (DecodeError, FaceError) as exc:
            raise RecropError(str(exc)) from exc


def _read(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Values of ascending rows; text as str."""
    values = dataset.asstr() if h5py.check_string_dtype(dataset.dtype) else dataset
    if not len(rows):
        return np.asarray(values[:0])
    first, beyond = int(rows[0]), int(rows[-1]) + 1
    if beyond - first <= DENSE * len(rows):
        return np.asarray(values[first:beyond])[rows - first]
    return np.asarray(values[rows])

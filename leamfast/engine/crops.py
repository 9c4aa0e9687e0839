"""From the images of a shard to aligned crops: decode, detect, align; every image left out has its reason."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from leamfast.datasets.decoding import DecodeError, decode_part, read_bytes
from leamfast.datasets.entry import Entry
from leamfast.engine.crop_cache import CropCache, Cropped, Made
from leamfast.engine.finding import ALIGNMENTS, Finding
from leamfast.engine.masks import MaskFiles
from leamfast.engine.plan import Shard
from leamfast.faces.alignment import FaceError, resize_crop, resize_label, warp_image, warp_label
from leamfast.faces.cache import Picture
from leamfast.faces.parse import Parser
from leamfast.faces.selection import Detection
from leamfast.store.arrays import NO_LABEL
from leamfast.store.part import Failure

__all__ = ["ALIGNMENTS", "Crops", "Finding", "Row", "make_crops"]

HELD = 16
"""Pictures that are searched together, and so lie in memory."""

HELD_BYTES = 256_000_000

NO_POINTS = np.full((5, 2), np.nan, np.float32)
"""Of a picture in which no face was looked for, being aligned already."""
NO_POINTS.setflags(write=False)


@dataclass(frozen=True)
class Row:
    """A usable image.

    Attributes:
        entry: what the manifest says of it.
        position: its position in the manifest.
        identity: number of its identity within the shard.
        sha1: of its file's bytes.
    """

    entry: Entry
    position: int
    identity: int
    sha1: str


@dataclass
class Crops:
    """The usable images of a shard, cropped for every input size.

    Attributes:
        rows: one for each usable image, in manifest order.
        points: of the face of each row, (5, 2) float32 in pixels of the picture, as `Detection.points`; NaN
            where no face was looked for.
        images: size -> crops, each (size, size, 3) uint8 RGB.
        transforms: size -> (2, 3) from the picture's pixel coordinates to the crop's.
        labels: size -> region masks, (size, size) uint8, `NO_LABEL` where nothing is known; empty without
            anyone who tells regions.
        failures: images left out.
        pictures: position and fingerprint of every image that was decoded, used or not.
    """

    rows: list[Row] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)
    images: dict[int, list[np.ndarray]] = field(default_factory=dict)
    transforms: dict[int, list[np.ndarray]] = field(default_factory=dict)
    labels: dict[int, list[np.ndarray]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    pictures: list[tuple[int, str]] = field(default_factory=list)

    @property
    def positions(self) -> list[int]:
        """Of the rows, in the manifest."""
        return [row.position for row in self.rows]

    def fail(self, entry: Entry, stage: str, reason: str) -> None:
        """Note why an image is not used, or not for everything."""
        self.failures.append(Failure(entry.name, entry.identity, stage, reason))

    def add(self, row: Row, points: np.ndarray, crops: Mapping[int, Made]) -> None:
        """A usable image, the points of its face and its crops of every size."""
        self.rows.append(row)
        self.points.append(points)
        for size, made in crops.items():
            self.images[size].append(made.pixels)
            self.transforms[size].append(made.transform)
            if size in self.labels:
                unknown = np.full((size, size), NO_LABEL, np.uint8)
                self.labels[size].append(unknown if made.label is None else made.label)


def make_crops(
    shard: Shard,
    root: Path,
    sizes: Sequence[int],
    finding: Finding | None,
    parsing: Parser | MaskFiles | None,
    threads: int,
    cache: CropCache | None = None,
    repeats: Mapping[int, str] | None = None,
) -> Crops:
    """Crops of all usable images of a shard.

    Args:
        shard: the images.
        root: folder that relative paths start from.
        sizes: sides of the crops to be made.
        finding: how faces are found and aligned; None for crops that are aligned.
        parsing: who tells the regions of a picture, which are warped along; a parser needs `finding`.
        threads: how many images are decoded at the same time.
        cache: what is known of pictures that were cropped before with this finding and parser, and takes
            what is made.
        repeats: position -> name of the earlier image whose picture it repeats, where this is known already:
            in a slice of an identity, of all its images.
    """
    crops = Crops(
        images={size: [] for size in sizes},
        transforms={size: [] for size in sizes},
        labels={} if parsing is None else {size: [] for size in sizes},
    )
    with ThreadPoolExecutor(threads) as pool:
        loaded = _loaded(
            pool, shard, root, sizes, cache, min(2 * threads, HELD), repeats or {}, crops.pictures
        )
        for batch in _batches(loaded):
            _add_all(crops, batch, finding, parsing, cache)
    return crops


@dataclass(frozen=True)
class _Picture:
    """A picture of a shard, decoded, or only its crops where they are known.

    Attributes:
        row: the image.
        shape: height and width.
        fingerprint: SHA-1 of the pixels.
        pixels: (H, W, 3), or None where crops are known.
        known: its crops, where they are.
    """

    row: Row
    shape: tuple[int, int]
    fingerprint: str
    pixels: np.ndarray | None
    known: Cropped | None = None

    @property
    def source(self) -> Picture:
        """What caches know it by."""
        return self.row.sha1, self.row.entry.rect


def _loaded(
    pool: ThreadPoolExecutor,
    shard: Shard,
    root: Path,
    sizes: Sequence[int],
    cache: CropCache | None,
    ahead: int,
    repeats: Mapping[int, str],
    pictures: list[tuple[int, str]],
) -> Iterator[_Picture | Failure]:
    """Pictures in order, loaded a few ahead: a large identity never lies in memory as a whole."""
    waiting: deque[tuple[Row, Future[_Picture | DecodeError] | str]] = deque()
    seen: dict[tuple[int, str], str] = {}

    def finish() -> _Picture | Failure:
        row, loading = waiting.popleft()
        entry = row.entry
        if isinstance(loading, str):
            return _repeat(entry, loading)
        loaded = loading.result()
        if isinstance(loaded, DecodeError):
            return Failure(entry.name, entry.identity, "decode", str(loaded))
        pictures.append((row.position, loaded.fingerprint))
        picture = row.identity, loaded.fingerprint
        if picture in seen:
            return _repeat(entry, seen[picture])
        seen[picture] = entry.name
        return loaded

    for number, identity in enumerate(shard.identities):
        for offset, entry in enumerate(identity.entries):
            row = Row(entry, identity.first + offset, number, "")
            if row.position in shard.left_out:
                yield Failure(entry.name, entry.identity, "compute", shard.left_out[row.position])
                continue
            known = repeats.get(row.position)
            waiting.append((row, pool.submit(_load, row, root, sizes, cache) if known is None else known))
            if len(waiting) > ahead:
                yield finish()
    while waiting:
        yield finish()


def _repeat(entry: Entry, of: str) -> Failure:
    return Failure(entry.name, entry.identity, "duplicate", f"same picture as {of}")


def _load(row: Row, root: Path, sizes: Sequence[int], cache: CropCache | None) -> _Picture | DecodeError:
    entry = row.entry
    try:
        data = read_bytes(root / entry.path, entry.spans)
        row = replace(row, sha1=hashlib.sha1(data, usedforsecurity=False).hexdigest())
        if cache is not None and (known := cache.get((row.sha1, entry.rect), sizes)) is not None:
            return _Picture(row, known.shape, known.fingerprint, None, known)
        pixels = decode_part(data, entry.rect)
    except DecodeError as error:
        return error
    height, width = pixels.shape[:2]
    fingerprint = hashlib.sha1(pixels.data, usedforsecurity=False).hexdigest()
    return _Picture(row, (height, width), fingerprint, pixels)


def _batches(items: Iterable[_Picture | Failure]) -> Iterator[list[_Picture | Failure]]:
    """Items in order, with at most `HELD` pictures, and at most one beyond `HELD_BYTES` of pixels."""
    batch: list[_Picture | Failure] = []
    pictures = size = 0
    for item in items:
        batch.append(item)
        if isinstance(item, _Picture) and item.pixels is not None:
            pictures += 1
            size += item.pixels.nbytes
        if pictures == HELD or size >= HELD_BYTES:
            yield batch
            batch, pictures, size = [], 0, 0
    if batch:
        yield batch


def _add_all(
    crops: Crops,
    batch: Sequence[_Picture | Failure],
    finding: Finding | None,
    parsing: Parser | MaskFiles | None,
    cache: CropCache | None,
) -> None:
    pictures = [(item, item.pixels) for item in batch if isinstance(item, _Picture)]
    searched = [(item, pixels) for item, pixels in pictures if pixels is not None]
    faces: Sequence[Detection | FaceError | None] = [None] * len(searched)
    if finding is not None:
        faces = finding.find([pixels for _, pixels in searched], [item.source for item, _ in searched])
    found = iter(faces)
    news = []
    for item in batch:
        if isinstance(item, Failure):
            crops.failures.append(item)
            continue
        cropped = item.known
        if cropped is None:
            face = next(found)
            made, whole = _crop(crops, item, finding, face, parsing)
            if made is None:
                continue
            points = face.points if isinstance(face, Detection) else NO_POINTS
            cropped = Cropped(item.shape, item.fingerprint, points, made)
            if whole:
                news.append((item.source, cropped))
        made = cropped.crops
        if isinstance(parsing, MaskFiles):
            made = _with_masks(crops, item, made, parsing, aligned=finding is None)
        crops.add(item.row, cropped.points, made)
    if cache is not None:
        cache.put(news)


def _crop(
    crops: Crops,
    picture: _Picture,
    finding: Finding | None,
    face: Detection | FaceError | None,
    parsing: Parser | MaskFiles | None,
) -> tuple[Mapping[int, Made] | None, bool]:
    """Crops of a picture, and whether nothing of them failed; None, and the reason noted, where none are."""
    entry, pixels, sizes = picture.row.entry, picture.pixels, list(crops.images)
    assert pixels is not None
    if face is None or finding is None:
        try:
            return {size: Made(*resize_crop(pixels, size), None) for size in sizes}, True
        except FaceError as error:
            crops.fail(entry, "align", str(error))
            return None, False
    try:
        if isinstance(face, FaceError):
            raise face
        transforms = finding.transforms(face, sizes)
    except FaceError as error:
        crops.fail(entry, "detect", str(error))
        return None, False
    label, whole = None, True
    if parsing is not None and not isinstance(parsing, MaskFiles):
        try:
            label = parsing.parse(pixels, face)
        except FaceError as error:
            crops.fail(entry, "parse", f"{error}; the image is used without regions")
            whole = False
    made = {}
    try:
        for size, transform in transforms.items():
            mask = None if label is None else warp_label(label, transform, size)
            made[size] = Made(warp_image(pixels, transform, size), transform, mask)
    except FaceError as error:
        crops.fail(entry, "align", str(error))
        return None, False
    return made, whole


def _with_masks(
    crops: Crops, picture: _Picture, made: Mapping[int, Made], masks: MaskFiles, aligned: bool
) -> Mapping[int, Made]:
    """Crops with the mask of the picture's file, where it has one."""
    try:
        label = masks.read(picture.row.entry, picture.shape)
    except DecodeError as error:
        crops.fail(picture.row.entry, "label", str(error))
        return made
    if label is None:
        return made
    return {
        size: replace(
            crop,
            label=resize_label(label, size) if aligned else warp_label(label, crop.transform, size),
        )
        for size, crop in made.items()
    }

"""From the images of a shard to aligned crops: decode, detect, align; every image left out has its reason."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path

import numpy as np

from leamfast.datasets.decoding import DecodedImage, DecodeError, decode_label, read_image
from leamfast.datasets.entry import Entry
from leamfast.engine.plan import Shard
from leamfast.faces.alignment import (
    FaceError,
    paper_transform,
    resize_crop,
    resize_label,
    similarity_transform,
    warp_image,
    warp_label,
)
from leamfast.faces.cache import FaceCache, Picture
from leamfast.faces.selection import Detection, Detector, find_faces
from leamfast.store.arrays import NO_LABEL
from leamfast.store.part import Failure

__all__ = ["ALIGNMENTS", "Crops", "Finding", "Row", "make_crops"]

ALIGNMENTS = ("arcface", "paper", "none")

HELD = 16
"""Pictures that are searched together, and so lie in memory."""

HELD_BYTES = 256_000_000


@dataclass(frozen=True)
class Finding:
    """How faces are found and brought into crops.

    Attributes:
        detector: finds the face.
        align: `arcface`, five points onto the template, or `paper`, the whole face upright, which needs the
            landmarks of dlib.
        faces: `one`, or `largest` to use the largest face of several.
        cache: what is known of pictures that were searched before, and takes what is found.
    """

    detector: Detector
    align: str = "arcface"
    faces: str = "one"
    cache: FaceCache | None = None

    def find(self, images: Sequence[np.ndarray], pictures: Sequence[Picture]) -> list[Detection | FaceError]:
        """The face of each image, or why there is none that can be used: as `find_face`.

        Args:
            images: pixels, each (H, W, 3) uint8 RGB.
            pictures: where each comes from, which is what the cache goes by.
        """
        if self.cache is None:
            return find_faces(self.detector, images, self.faces)
        known = self.cache.look_up(pictures, self.faces)
        unknown = [number for number, face in enumerate(known) if face is None]
        searched = find_faces(self.detector, [images[number] for number in unknown], self.faces)
        self.cache.keep([(pictures[i], face) for i, face in zip(unknown, searched, strict=True)], self.faces)
        news = iter(searched)
        return [next(news) if face is None else face for face in known]

    def transforms(self, face: Detection, sizes: Iterable[int]) -> dict[int, np.ndarray]:
        """Size -> transform (2, 3) from the picture to a crop of its face.

        Raises:
            FaceError: the face cannot be aligned.
        """
        if self.align == "paper":
            if face.landmarks is None:
                raise FaceError("the detector gives no landmarks")
            return {size: paper_transform(face.landmarks, size) for size in sizes}
        return {size: similarity_transform(face.points, size) for size in sizes}


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
        images: size -> crops, each (size, size, 3) uint8 RGB.
        transforms: size -> (2, 3) from the picture's pixel coordinates to the crop's.
        labels: size -> region masks, (size, size) uint8, all `NO_LABEL` where there is none.
        failures: images left out.
    """

    rows: list[Row] = field(default_factory=list)
    images: dict[int, list[np.ndarray]] = field(default_factory=dict)
    transforms: dict[int, list[np.ndarray]] = field(default_factory=dict)
    labels: dict[int, list[np.ndarray]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def fail(self, entry: Entry, stage: str, reason: str) -> None:
        """Note why an image is not used, or not for everything."""
        self.failures.append(Failure(entry.name, entry.identity, stage, reason))


def make_crops(
    shard: Shard,
    root: Path,
    sizes: Sequence[int],
    finding: Finding | None,
    labels: bool,
    threads: int,
) -> Crops:
    """Crops of all usable images of a shard.

    Args:
        shard: the images.
        root: folder that relative paths start from.
        sizes: sides of the crops to be made.
        finding: how faces are found and aligned; None for crops that are aligned.
        labels: whether the manifest's region masks are read and warped along.
        threads: how many images are decoded at the same time.
    """
    crops = Crops(
        images={size: [] for size in sizes},
        transforms={size: [] for size in sizes},
        labels={size: [] for size in sizes},
    )
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(_decoded(pool, shard, root, ahead=2 * threads)):
            pictures = [item for item in batch if isinstance(item, _Picture)]
            found: Iterator[Detection | FaceError | None] = repeat(None)
            if finding is not None:
                found = iter(finding.find([p.pixels for p in pictures], [p.source for p in pictures]))
            for item in batch:
                if isinstance(item, Failure):
                    crops.failures.append(item)
                else:
                    _add(crops, item, root, finding, next(found), labels)
    return crops


@dataclass(frozen=True)
class _Picture:
    """A picture of a shard, decoded."""

    row: Row
    pixels: np.ndarray

    @property
    def source(self) -> Picture:
        """What the cache knows it by."""
        return self.row.sha1, self.row.entry.rect


def _decoded(pool: ThreadPoolExecutor, shard: Shard, root: Path, ahead: int) -> Iterator[_Picture | Failure]:
    """Pictures in order, decoded a few ahead: a large identity never lies in memory as a whole."""
    waiting: deque[tuple[Row, Future[DecodedImage | DecodeError]]] = deque()
    seen: dict[tuple[int, str], str] = {}

    def finish() -> _Picture | Failure:
        row, decoding = waiting.popleft()
        entry, decoded = row.entry, decoding.result()
        if isinstance(decoded, DecodeError):
            return Failure(entry.name, entry.identity, "decode", str(decoded))
        picture = row.identity, hashlib.sha1(decoded.pixels.data, usedforsecurity=False).hexdigest()
        if picture in seen:
            return Failure(entry.name, entry.identity, "duplicate", f"same picture as {seen[picture]}")
        seen[picture] = entry.name
        return _Picture(replace(row, sha1=decoded.sha1), decoded.pixels)

    for number, identity in enumerate(shard.identities):
        for offset, entry in enumerate(identity.entries):
            row = Row(entry, identity.first + offset, number, "")
            waiting.append((row, pool.submit(_read, root, entry)))
            if len(waiting) > ahead:
                yield finish()
    while waiting:
        yield finish()


def _batches(items: Iterable[_Picture | Failure]) -> Iterator[list[_Picture | Failure]]:
    """Items in order, with at most `HELD` pictures, and at most one beyond `HELD_BYTES` of pixels."""
    batch: list[_Picture | Failure] = []
    pictures = size = 0
    for item in items:
        batch.append(item)
        if isinstance(item, _Picture):
            pictures += 1
            size += item.pixels.nbytes
        if pictures == HELD or size >= HELD_BYTES:
            yield batch
            batch, pictures, size = [], 0, 0
    if batch:
        yield batch


def _read(root: Path, entry: Entry) -> DecodedImage | DecodeError:
    try:
        return read_image(root / entry.path, entry.spans, entry.rect)
    except DecodeError as error:
        return error


def _add(
    crops: Crops,
    picture: _Picture,
    root: Path,
    finding: Finding | None,
    face: Detection | FaceError | None,
    labels: bool,
) -> None:
    row, pixels = picture.row, picture.pixels
    label = _label(crops, row.entry, pixels, root) if labels else None
    made = {}
    try:
        if isinstance(face, FaceError):
            raise face
        transforms = None if finding is None or face is None else finding.transforms(face, crops.images)
    except FaceError as error:
        crops.fail(row.entry, "detect", str(error))
        return
    try:
        for size in crops.images:
            if transforms is None:
                crop, transform = resize_crop(pixels, size)
                mask = None if label is None else resize_label(label, size)
            else:
                transform = transforms[size]
                crop = warp_image(pixels, transform, size)
                mask = None if label is None else warp_label(label, transform, size)
            made[size] = crop, transform, mask
    except FaceError as error:
        crops.fail(row.entry, "align", str(error))
        return
    crops.rows.append(row)
    for size, (crop, transform, mask) in made.items():
        crops.images[size].append(crop)
        crops.transforms[size].append(transform)
        crops.labels[size].append(np.full((size, size), NO_LABEL, np.uint8) if mask is None else mask)


def _label(crops: Crops, entry: Entry, pixels: np.ndarray, root: Path) -> np.ndarray | None:
    if entry.label is None:
        return None
    try:
        label = decode_label(root / entry.label)
    except DecodeError as error:
        crops.fail(entry, "label", f"{entry.label}: {error}; the image is used without it")
        return None
    if label.shape != pixels.shape[:2]:
        crops.fail(
            entry,
            "label",
            f"{entry.label} is {label.shape[1]}x{label.shape[0]} where the image is "
            f"{pixels.shape[1]}x{pixels.shape[0]}; the image is used without it",
        )
        return None
    return label

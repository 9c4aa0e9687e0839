"""From the images of a shard to aligned crops: decode, detect, align; every image left out has its reason."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from leamfast.datasets.decoding import DecodedImage, DecodeError, decode_label, read_image
from leamfast.datasets.entry import Entry
from leamfast.engine.plan import Shard
from leamfast.faces.alignment import (
    FaceError,
    resize_crop,
    resize_label,
    similarity_transform,
    warp_image,
    warp_label,
)
from leamfast.faces.detection import RetinaFaceDetector, one_face
from leamfast.store.arrays import NO_LABEL
from leamfast.store.part import Failure

__all__ = ["ALIGNMENTS", "Crops", "Row", "make_crops"]

ALIGNMENTS = ("arcface", "none")


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
    detector: RetinaFaceDetector | None,
    labels: bool,
    threads: int,
) -> Crops:
    """Crops of all usable images of a shard.

    Args:
        shard: the images.
        root: folder that relative paths start from.
        sizes: sides of the crops to be made.
        detector: finds the face to be aligned to the ArcFace template; None for crops that are aligned.
        labels: whether the manifest's region masks are read and warped along.
        threads: how many images are decoded at the same time.
    """
    crops = Crops(
        images={size: [] for size in sizes},
        transforms={size: [] for size in sizes},
        labels={size: [] for size in sizes},
    )
    with ThreadPoolExecutor(threads) as pool:
        for number, identity in enumerate(shard.identities):
            seen: dict[str, str] = {}
            decoding = _decoded(pool, root, identity.entries, ahead=2 * threads)
            for offset, (entry, decoded) in enumerate(zip(identity.entries, decoding, strict=True)):
                if isinstance(decoded, DecodeError):
                    crops.fail(entry, "decode", str(decoded))
                    continue
                picture = hashlib.sha1(decoded.pixels.data, usedforsecurity=False).hexdigest()
                if picture in seen:
                    crops.fail(entry, "duplicate", f"same picture as {seen[picture]}")
                else:
                    seen[picture] = entry.name
                    row = Row(entry, identity.first + offset, number, decoded.sha1)
                    _add(crops, row, decoded.pixels, root, detector, labels)
    return crops


def _decoded(
    pool: ThreadPoolExecutor, root: Path, entries: Sequence[Entry], ahead: int
) -> Iterator[DecodedImage | DecodeError]:
    """Pictures in order, decoded a few ahead: a large identity never lies in memory as a whole."""
    waiting: deque[Future[DecodedImage | DecodeError]] = deque()
    for entry in entries:
        waiting.append(pool.submit(_read, root, entry))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read(root: Path, entry: Entry) -> DecodedImage | DecodeError:
    try:
        return read_image(root / entry.path, entry.spans, entry.rect)
    except DecodeError as error:
        return error


def _add(
    crops: Crops, row: Row, pixels: np.ndarray, root: Path, detector: RetinaFaceDetector | None, labels: bool
) -> None:
    label = _label(crops, row.entry, pixels, root) if labels else None
    made = {}
    try:
        points = None if detector is None else one_face(detector.detect(pixels)).points
    except FaceError as error:
        crops.fail(row.entry, "detect", str(error))
        return
    try:
        for size in crops.images:
            if points is None:
                crop, transform = resize_crop(pixels, size)
                mask = None if label is None else resize_label(label, size)
            else:
                transform = similarity_transform(points, size)
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

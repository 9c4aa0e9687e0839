"""Aligned crops by themselves: shards of images -> PNG files, and a record of each shard.

A record says which crops a shard has, with their hashes, and which images were left out. It is written after
the crops, in one piece: where it is, they are whole. Everything else that a folder of crops holds follows
from the records.
"""

import errno
import hashlib
import io
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from leamfast.engine.batch import set_up_torch
from leamfast.engine.crop_names import crop_names
from leamfast.engine.crops import make_crops
from leamfast.engine.finding import Finding, load_finding
from leamfast.engine.plan import Shard
from leamfast.store.atomic import StorageFullError, write_atomically
from leamfast.store.part import Failure

__all__ = [
    "AlignFunction",
    "AlignSettings",
    "AlignedShard",
    "Crop",
    "CropSink",
    "Record",
    "RecordError",
    "check_crops",
    "read_record",
    "record_path",
]

DURABLE = 8  # files that are made durable at the same time
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RecordError(ValueError):
    """A record, or a crop of it, is not what was written; the message says in which way."""


@dataclass(frozen=True)
class AlignSettings:
    """Everything that crops depend on, besides the shards themselves.

    Attributes:
        root: folder that relative image paths start from.
        folders: identity -> name of its folder.
        names: identity -> position of its first image, and names of its crops; those that are cut alone.
        detector: `retinaface=FILE`, `dlib` or `dlib=FILE`.
        align: `arcface` or `paper`.
        faces: `one`, or `largest` of several.
        size: side of the crops in pixels.
        threads: how many threads one process computes with.
        device: where the detector computes.
    """

    root: Path
    folders: Mapping[str, str]
    names: Mapping[str, tuple[int, tuple[str, ...]]]
    detector: str
    align: str
    faces: str
    size: int
    threads: int
    device: str


@dataclass(frozen=True)
class Crop:
    """A crop in its folder.

    Attributes:
        path: its file, POSIX, relative to the folder of all crops.
        sha256: of the file's bytes.
        identity: the person's name.
        source: the image that it was cut from, as its data set names it.
        metadata: the further columns of the data set.
    """

    path: str
    sha256: str
    identity: str
    source: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class AlignedShard:
    """The crops of a shard, with the PNG files that they are to become, and its images without one."""

    shard: int
    crops: tuple[Crop, ...]
    files: tuple[bytes, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Record:
    """What a finished shard has left behind."""

    crops: tuple[Crop, ...]
    failures: tuple[Failure, ...]


class AlignFunction:
    """Shard -> crops.

    Args:
        settings: of the run.
    """

    def __init__(self, settings: AlignSettings) -> None:
        self.settings = settings

    def __getstate__(self) -> dict[str, Any]:
        # What a process has loaded stays there.
        return {"settings": self.settings}

    @cached_property
    def finding(self) -> Finding:
        """How faces are found; the detector is loaded at first use."""
        settings = self.settings
        set_up_torch(settings.threads, settings.device)
        return load_finding(
            settings.detector, settings.align, settings.faces, settings.device, settings.threads
        )

    def __call__(self, shard: Shard, ahead: Shard | None = None) -> AlignedShard:
        """Crop one shard."""
        settings = self.settings
        crops = make_crops(shard, settings.root, [settings.size], self.finding, None, settings.threads)
        names = {}
        for identity in shard.identities:
            folder = settings.folders[identity.name]
            if identity.name in settings.names:
                start, of_all = settings.names[identity.name]
                own = of_all[identity.first - start :]
            else:
                own = tuple(crop_names(identity.entries))
            for offset, name in enumerate(own[: len(identity.entries)]):
                names[identity.first + offset] = f"{folder}/{name}"
        made, files = [], []
        for row, pixels in zip(crops.rows, crops.images[settings.size], strict=True):
            files.append(_png(pixels))
            entry, sha256 = row.entry, hashlib.sha256(files[-1]).hexdigest()
            made.append(Crop(names[row.position], sha256, entry.identity, entry.name, entry.metadata))
        return AlignedShard(shard.number, tuple(made), tuple(files), tuple(crops.failures))


class CropSink:
    """Writes the crops of a shard, and then its record.

    Args:
        out: folder of all crops.
        records: folder of the records.
        run: SHA-256 of the frozen settings of the run.
    """

    def __init__(self, out: Path, records: Path, run: str) -> None:
        self.out, self.records, self.run = out, records, run

    def __call__(self, result: AlignedShard) -> None:
        paths = [self.out / crop.path for crop in result.crops]
        folders = {path.parent for path in paths}
        try:
            for folder in folders:
                folder.mkdir(exist_ok=True)
            for path, content in zip(paths, result.files, strict=True):
                path.write_bytes(content)
            with ThreadPoolExecutor(DURABLE) as pool:  # the system writes together what is asked together
                list(pool.map(_make_durable, (*paths, *folders, self.out)))
        except OSError as exc:
            if exc.errno in FULL:
                needed = sum(map(len, result.files))
                raise StorageFullError(
                    exc.errno,
                    f"no room for the crops of shard {result.shard} ({needed:,} bytes): free some and go on "
                    "with --resume",
                ) from exc
            raise
        record = {
            "run": self.run,
            "shard": result.shard,
            "crops": [asdict(crop) for crop in result.crops],
            "failures": [asdict(failure) for failure in result.failures],
        }
        write_atomically(record_path(self.records, result.shard), json.dumps(record).encode())


def record_path(records: Path, shard: int) -> Path:
    """Where the record of a shard lies."""
    return records / f"shard-{shard:06d}.json"


def read_record(records: Path, shard: int, run: str) -> Record:
    """The record of a finished shard.

    Raises:
        RecordError: it is missing, damaged, or another shard's or another run's.
    """
    path = record_path(records, shard)
    try:
        content = json.loads(path.read_bytes())
        record = Record(
            tuple(Crop(**crop) for crop in content["crops"]),
            tuple(Failure(**failure) for failure in content["failures"]),
        )
        ours = (content["shard"], content["run"]) == (shard, run)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise RecordError(f"{path.name} cannot be read") from exc
    if not ours:
        raise RecordError(f"{path.name} is another shard's or another run's")
    return record


def check_crops(out: Path, record: Record) -> None:
    """See that the crops of a record are as they were written.

    Raises:
        RecordError: one is not.
    """
    for crop in record.crops:
        try:
            found = hashlib.sha256((out / crop.path).read_bytes()).hexdigest()
        except OSError as exc:
            raise RecordError(f"{crop.path} cannot be read") from exc
        if found != crop.sha256:
            raise RecordError(f"{crop.path} is not what was written")


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

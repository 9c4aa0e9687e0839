"""WebDataset: tar files, called shards, whose members of one key are one sample.

The key of a member is its path up to the first dot of its last part, the suffix is the rest: `a/7.jpg`,
`a/7.cls` and `a/7.json` are the image, the class and further fields of the sample `a/7`. Members are never
unpacked, so their names lead nowhere.

Reference: the WebDataset format specification, "File Naming and Grouping".
"""

import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from leamfast.datasets.decoding import IMAGE_SUFFIXES
from leamfast.datasets.entry import Entry
from leamfast.datasets.folders import listing
from leamfast.datasets.manifest import Manifest, grouped, is_plain
from leamfast.datasets.tables import COLUMN_NAME, LABEL, MAX_COLUMNS, PLACE, REQUIRED, RESERVED_COLUMNS
from leamfast.errors import RequestError

__all__ = ["read_webdataset"]

PACKED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz)$", re.IGNORECASE)
MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)(\.[^/]+)", re.DOTALL)
TEXT_SUFFIXES = (".cls", ".json", ".txt")
TAKEN = frozenset({*REQUIRED, LABEL, *PLACE, *RESERVED_COLUMNS})
IDENTITY_KEYS = ("identity", "label")
MAX_TEXT_BYTES = 1 << 20
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

BEYOND = "member that reaches beyond the end of its shard"
CUT = "rest of a shard that is cut off or damaged"
NO_FILE = "member that is a link, sparse or no file"
EMPTY = "image without bytes"
NO_NAME = "member whose name is not UTF-8 or holds a NUL byte"
REPEATED = "member of a name that its shard has before"
NO_TEXT = "image whose .cls, .json or .txt is damaged or too large"
NO_IDENTITY = "image without an identity"
NO_COLUMN = "metadata value whose key cannot name a column"
NO_VALUE = "metadata value that is not UTF-8 or holds a NUL byte"


@dataclass
class _Sample:
    """The members of a key."""

    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    texts: dict[str, tuple[int, int]] = field(default_factory=dict)


def read_webdataset(path: Path) -> Manifest:
    """List the images of a WebDataset.

    Args:
        path: a .tar file, or a folder of them, which are read in natural order.

    Returns:
        Entries named by their members. The identity of a sample is its .cls, else the key `identity`, else
        `label`, of its .json, else its .txt; other keys of the .json whose values are no lists and no objects
        are metadata. What cannot be used is counted in `left_out`, members of other suffixes in `ignored`.

    Raises:
        RequestError: path is missing, no uncompressed tar, or no image with an identity is left.
    """
    shards = _shards(path)
    left_out: Counter[str] = Counter()
    ignored = 0
    entries: list[Entry] = []
    columns: dict[str, None] = {}
    for shard in shards:
        with shard.open("rb") as stream:
            samples, others = _samples(shard, stream, left_out)
            ignored += others
            for sample in samples.values():
                entries += _entries(shard.name, stream, sample, columns, left_out)
    if not entries:
        counts = "; ".join(f"{times} x {reason}" for reason, times in left_out.items())
        raise RequestError(
            f"DATA must hold images with an identity in .cls, .json or .txt, got {path} with none "
            f"({counts or 'no image'})"
        )
    for entry in entries:
        for name in columns:
            entry.metadata.setdefault(name, "")
    return Manifest(shards[0].parent, grouped(entries), tuple(columns), ignored, dict(left_out))


def _shards(path: Path) -> list[Path]:
    """The tar files that `path` names, in natural order."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise _refused(path, "there is no such file or folder")
    names = [name for name, is_folder in listing(path) if not is_folder]
    for name in names:
        if PACKED.search(name):
            raise _refused(path, f"{name} is compressed: unpack it to a .tar")
    shards = [path / name for name in names if name.lower().endswith(".tar")]
    if not shards:
        raise _refused(path, "there is no .tar file in it")
    for shard in shards:
        if not shard.is_file():
            raise _refused(path, f"{shard.name} is no regular file")
    return shards


def _samples(shard: Path, stream: BinaryIO, left_out: Counter[str]) -> tuple[dict[str, _Sample], int]:
    """The samples of a shard by key, and how many members belong to none."""
    size = os.fstat(stream.fileno()).st_size
    samples: dict[str, _Sample] = {}
    ignored = 0
    for member in _members(shard, stream, size, left_out):
        match = MEMBER.fullmatch(member.name)
        suffix = match[2].lower() if match else ""
        if member.isdir():
            continue
        if not member.isreg() or member.sparse is not None:
            left_out[NO_FILE] += 1
        elif not 0 <= member.size <= size - member.offset_data:
            left_out[BEYOND] += 1
        elif not is_plain(member.name):
            left_out[NO_NAME] += 1
        elif match is None or suffix not in (*IMAGE_SUFFIXES, *TEXT_SUFFIXES):
            ignored += 1
        elif member.size == 0 and suffix in IMAGE_SUFFIXES:
            left_out[EMPTY] += 1
        else:
            sample = samples.setdefault(match[1], _Sample())
            members = sample.images if suffix in IMAGE_SUFFIXES else sample.texts
            name = member.name if suffix in IMAGE_SUFFIXES else suffix
            if name in members:
                left_out[REPEATED] += 1
            members.setdefault(name, (member.offset_data, member.size))
    return samples, ignored


def _members(shard: Path, stream: BinaryIO, size: int, left_out: Counter[str]) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar, as far as they can be read."""
    start = stream.read(8)
    for magic, name in COMPRESSED.items():
        if start.startswith(magic):
            raise _refused(shard, f"it is compressed ({name}): unpack it to a plain .tar")
    stream.seek(0)
    try:
        archive = tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape")
    except OSError:
        raise
    except Exception as exc:
        raise _refused(shard, "it is no tar archive, or is cut off or damaged at its start") from exc
    last = -1
    while (member := _next(archive)) is not None and member.offset > last:
        last = member.offset
        yield member
        if not last < archive.offset <= size:
            break
    if 0 <= archive.offset < size:
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE):
            return
    left_out[CUT] += 1


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next header; None at the end of the archive or where it is damaged."""
    archive.members = []  # type: ignore[attr-defined]  # It keeps them all.
    try:
        return archive.next()
    except OSError:
        raise
    except Exception:
        # Damaged headers make tarfile raise more than its own errors: ValueError, RecursionError, ...
        return None


def _entries(
    shard: str, stream: BinaryIO, sample: _Sample, columns: dict[str, None], left_out: Counter[str]
) -> Iterator[Entry]:
    """The images of a sample, whose metadata keys join the columns."""
    if not sample.images:
        return
    try:
        texts = {suffix: _text(stream, *place) for suffix, place in sample.texts.items()}
        fields = json.loads(texts.get(".json", "{}"))
        if not isinstance(fields, dict):
            raise ValueError(".json is no object")
    except (ValueError, RecursionError):
        left_out[NO_TEXT] += len(sample.images)
        return
    scalars = {name: _scalar(value) for name, value in fields.items()}
    named = (texts.get(".cls"), *map(scalars.get, IDENTITY_KEYS), texts.get(".txt"))
    identity = next((name.strip() for name in named if name and name.strip()), None)
    if identity is None or not is_plain(identity):
        left_out[NO_IDENTITY] += len(sample.images)
        return
    metadata: dict[str, str] = {}
    for name, text in scalars.items():
        if name in IDENTITY_KEYS or text is None:
            continue
        new = name not in columns
        if new and (len(columns) == MAX_COLUMNS or not _names_column(name)):
            left_out[NO_COLUMN] += 1
        elif not is_plain(text):
            left_out[NO_VALUE] += 1
        else:
            columns[name] = None
            metadata[name] = text.strip()
    for name, place in sample.images.items():
        yield Entry(shard, identity, None, dict(metadata), name, (place,))


def _text(stream: BinaryIO, offset: int, length: int) -> str:
    if length > MAX_TEXT_BYTES:
        raise ValueError(f"{length} bytes")
    stream.seek(offset)
    return stream.read(length).decode("utf-8-sig")


def _scalar(value: Any) -> str | None:
    """A value of a .json as text; None where it is a list or an object."""
    if value is None:
        return ""
    return None if isinstance(value, (list, dict)) else str(value)


def _names_column(name: str) -> bool:
    return name not in TAKEN and name == name.strip() and COLUMN_NAME.fullmatch(name) is not None


def _refused(file: Path, reason: str) -> RequestError:
    return RequestError(f"DATA must be a .tar file or a folder of them, got {file}: {reason}")

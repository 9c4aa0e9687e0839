"""InsightFace's RecordIO data sets: `train.rec` with its `train.idx`.

A part of a record is magic (uint32), kind and length (uint32: upper 3 and lower 29 bits) and the data, padded
to 4 bytes; numbers are little-endian. Kind 0 is a whole record. Data that hold the magic number are cut there
into parts of the kinds 1, 2, ..., 2, 3, with the magic number taken out between them.

The data are flag (uint32), label (float32), id (uint64), a second id (uint64), `flag` float32 labels where
that is not 0, and the image. Where record 0 has labels, its first is n: the images are the records 1 to n - 1
and further records hold ranges of identities. Where it has none, all records are images.

Reference: MXNet, `recordio.py` (IRHeader) and dmlc-core, `recordio.h`; InsightFace, `MXFaceDataset`.
"""

import os
import re
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leamfast.datasets.entry import Entry, Spans
from leamfast.datasets.manifest import Manifest, grouped
from leamfast.errors import RequestError

__all__ = ["read_recordio"]

Numbers = NDArray[np.int64]

NAME = "train.rec"
MAGIC = 0xCED7230A
FIRST, MIDDLE, LAST = 1, 2, 3
LENGTH_BITS = 29
LENGTH_MASK = (1 << LENGTH_BITS) - 1
PART = struct.Struct("<II")
HEAD = np.dtype(
    [
        ("magic", "<u4"),
        ("word", "<u4"),
        ("flag", "<u4"),
        ("label", "<f4"),
        ("ids", "<u8", 2),
        ("first", "<f4"),
    ]
)
FIXED = HEAD.itemsize - PART.size - 4
"""Bytes of a record before its `flag` labels."""

INDEX_LINES = re.compile(rb"(?:[0-9]{1,18}[ \t]+[0-9]{1,18}[ \t]*\r?\n)*+")
MAX_INDEX_BYTES = 1 << 31
CHUNK = 1 << 16

UNLISTED = "image record that the .idx does not list"
REASONS = (
    "record that reaches beyond the end of the file",
    "record that is damaged",
    "record without an image",
    "record whose label is no identity",
)


def read_recordio(path: Path) -> Manifest:
    """List the images of a RecordIO data set; identities are the whole numbers that records have as label.

    Args:
        path: the .rec file, whose .idx lies beside it, or the folder of `train.rec` and `train.idx`.

    Returns:
        Entries in the order of record numbers, which are their names in the file. Records that are cut off,
        damaged, without an image or without an identity are counted in `left_out`.

    Raises:
        RequestError: a file is missing or of another kind, the .idx is of another .rec, or no image is left.
    """
    file = path / NAME if path.is_dir() else path
    index = file.with_suffix(".idx")
    for needed in (file, index):
        if not needed.is_file():
            raise _refused(path, f"there is no file {needed}")
    keys, offsets = _read_index(index)
    with file.open("rb", buffering=0) as stream:
        return _read_records(file, stream.fileno(), keys, offsets)


def _read_index(file: Path) -> tuple[Numbers, Numbers]:
    """Record numbers, ascending, and the offsets at which their records start."""
    if file.stat().st_size > MAX_INDEX_BYTES:
        raise _refused(file, f"it has more than {MAX_INDEX_BYTES >> 20} MiB and is no index")
    data = file.read_bytes()
    if not data.endswith(b"\n"):
        data += b"\n"
    match = INDEX_LINES.match(data)
    end = match.end() if match else 0
    if end < len(data):
        line = data.count(b"\n", 0, end) + 1
        raise _refused(file, f"line {line} must be a record's number, a tab and its offset")
    keys, offsets = np.fromstring(data, np.int64, sep=" ").reshape(-1, 2).T
    order = np.argsort(keys, kind="stable")
    for what, numbers in (("record", keys[order]), ("offset", np.sort(offsets))):
        twice = numbers[1:][numbers[1:] == numbers[:-1]]
        if twice.size:
            raise _refused(file, f"it lists the {what} {twice[0]} twice")
    return keys[order], offsets[order]


def _read_records(file: Path, stream: int, keys: Numbers, offsets: Numbers) -> Manifest:
    """The manifest, from one look at the head of each image record."""
    size = os.fstat(stream).st_size
    starts = np.append(np.sort(offsets), np.iinfo(np.int64).max)
    left_out: dict[str, int] = {}
    count = _image_count(file, stream, int(offsets[0]), size) if keys.size and keys[0] == 0 else None
    if count is not None:
        images = (keys > 0) & (keys <= count)
        keys, offsets = keys[images], offsets[images]
        if count > keys.size:
            left_out[UNLISTED] = count - keys.size

    heads = _read_heads(stream, offsets, size)
    wrong = (offsets <= size - PART.size) & ~_starts_record(heads)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _no_record(file, int(keys[row]), int(offsets[row]))
    lengths = (heads["word"] & LENGTH_MASK).astype(np.int64)
    ends = offsets + PART.size + lengths
    limits = starts[np.searchsorted(starts, offsets, side="right")]
    split: dict[int, Spans] = {}
    for row in np.flatnonzero(heads["word"] >> LENGTH_BITS == FIRST).tolist():
        spans, ends[row] = _read_parts(stream, int(offsets[row]), min(int(limits[row]), size))
        split[row], lengths[row] = spans, sum(length for _, length in spans)
        heads[row] = _joined_head(stream, spans)

    skips = FIXED + 4 * heads["flag"].astype(np.int64)
    with np.errstate(invalid="ignore"):
        labels = np.where(heads["flag"] > 0, heads["first"], heads["label"]).astype(np.float64)
        unlabelled = ~(np.abs(labels) < 1 << 31)
    faults = [ends > size, (ends > limits) | (lengths < skips), lengths == skips, unlabelled]
    reasons = np.select(faults, range(len(faults)), -1)
    for number, reason in enumerate(REASONS):
        if times := int(np.count_nonzero(reasons == number)):
            left_out[reason] = times

    rows = np.flatnonzero(reasons < 0)
    identities = labels[rows].astype(np.int64)
    names = {identity: str(identity) for identity in np.unique(identities).tolist()}
    places = (offsets + PART.size + skips)[rows], (lengths - skips)[rows]
    columns = (rows, keys[rows], identities, *places)
    entries = []
    for row, key, identity, *place in zip(*(column.tolist() for column in columns), strict=True):
        spans = _without_start(split[row], int(skips[row])) if row in split else ((place[0], place[1]),)
        entries.append(Entry(file.name, names[identity], inside=str(key), spans=spans))
    if not entries:
        counts = "; ".join(f"{times} x {reason}" for reason, times in left_out.items())
        raise RequestError(f"DATA must hold images, got {file} with none ({counts or 'no record'})")
    return Manifest(file.parent, grouped(entries), left_out=left_out)


def _image_count(file: Path, stream: int, offset: int, size: int) -> int | None:
    """How many images record 0 announces; None where it is an image itself."""
    if offset > size - HEAD.itemsize:
        raise _refused(file, "it is empty or cut off in record 0")
    heads = _read_heads(stream, np.array([offset]), size)
    if not _starts_record(heads)[0]:
        raise _no_record(file, 0, offset)
    if heads["flag"][0] == 0:
        return None
    first = float(heads["first"][0])
    if not 1 <= first < 1 << 31:
        raise _refused(file, f"record 0 must give the number of image records plus one, not {first}")
    return int(first) - 1


def _read_heads(stream: int, offsets: Numbers, size: int) -> NDArray[np.void]:
    """What stands at each offset, as `HEAD`; zeros beyond the end of the file."""
    heads = np.empty(len(offsets), HEAD)
    for start in range(0, len(offsets), CHUNK):
        places = np.minimum(offsets[start : start + CHUNK], size).tolist()
        data = [os.pread(stream, HEAD.itemsize, place).ljust(HEAD.itemsize, b"\0") for place in places]
        heads[start : start + CHUNK] = np.frombuffer(b"".join(data), HEAD)
    return heads


def _starts_record(heads: NDArray[np.void]) -> NDArray[np.bool_]:
    return (heads["magic"] == MAGIC) & (heads["word"] >> LENGTH_BITS <= FIRST)


def _read_parts(stream: int, offset: int, limit: int) -> tuple[Spans, int]:
    """The data of a split record, which must end at `limit` or before it, and the place of its end.

    The magic number that is missing between two parts is that of the second part's own header. A broken
    record has no spans, and an end beyond `limit` where that is what broke it.
    """
    spans: list[tuple[int, int]] = []
    while offset <= limit - PART.size:
        magic, word = PART.unpack(os.pread(stream, PART.size, offset))
        kind, length = word >> LENGTH_BITS, word & LENGTH_MASK
        if magic != MAGIC or kind not in ((MIDDLE, LAST) if spans else (FIRST,)):
            return (), offset
        if spans:
            spans.append((offset, 4))
        offset += PART.size
        spans.append((offset, length))
        offset += length
        if kind == LAST:
            return tuple(spans), offset
        offset += -length % 4
    return (), offset + PART.size


def _joined_head(stream: int, spans: Spans) -> NDArray[np.void]:
    """The head of a split record, as if it were whole."""
    data = bytes(PART.size)
    for offset, length in spans:
        data += os.pread(stream, min(length, HEAD.itemsize - len(data)), offset)
    return np.frombuffer(data.ljust(HEAD.itemsize, b"\0"), HEAD)[0]


def _without_start(spans: Spans, skip: int) -> Spans:
    """The spans behind the first `skip` bytes."""
    rest = []
    for offset, length in spans:
        cut = min(skip, length)
        skip -= cut
        if length > cut:
            rest.append((offset + cut, length - cut))
    return tuple(rest)


def _no_record(file: Path, key: int, offset: int) -> RequestError:
    what = (
        f"the .idx places record {key} at byte {offset}, where none starts: one of the two files is damaged"
    )
    return _refused(file, f"{what} or belongs to another data set")


def _refused(file: Path, reason: str) -> RequestError:
    return RequestError(f"DATA must be a RecordIO file with its .idx beside it, got {file}: {reason}")

"""InsightFace's verification sets: `lfw.bin` and its like, pickles of (images, is_same).

Images 2k and 2k + 1 are pair k, of one person where `is_same[k]`. A pickle is a program, and loading one runs
it. Here it is only read: of the instructions of all protocols those are known that build lists and tuples of
bytes and truth values, every other one is refused, and of an image nothing but its place is kept.

Reference: Python, `pickletools`; InsightFace, `lfw2pack.py` and `eval/verification.py`.
"""

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from pickletools import opcodes
from typing import Any, BinaryIO, NamedTuple

from leamfast.datasets.entry import Entry
from leamfast.datasets.manifest import Manifest, grouped
from leamfast.errors import RequestError

__all__ = ["read_verification"]

COLUMNS = ("pair", "same")
EMPTY = "image without bytes"
MAX_LINE = 64
REWRITE = (
    "if you trust its origin, rewrite it in Python 3 with "
    "pickle.dump(pickle.load(open(OLD, 'rb'), encoding='bytes'), open(NEW, 'wb'), protocol=4)"
)


class Place(NamedTuple):
    """Where the bytes of an image lie in the file."""

    offset: int
    length: int


class _Unreadable(Exception):
    """Why the pickle is refused, as the end of a sentence."""


def read_verification(path: Path) -> Manifest:
    """List the images of a verification set without running its pickle.

    Args:
        path: the .bin file.

    Returns:
        Two entries per pair, named by their positions in the file. It does not say whom they show: those of
        a pair of one person have the identity `pair-0007`, those of any other pair `pair-0007-a` and
        `pair-0007-b`. The metadata columns `pair` and `same` hold its number and "1" or "0".

    Raises:
        RequestError: the file is missing, no such pickle, cut off, has instructions of another kind or
            not two images per truth value.
    """
    if not path.is_file():
        raise _refused(path, "there is no such file")
    try:
        with path.open("rb") as stream:
            images, same = _parts(_Machine(stream).run())
    except _Unreadable as exc:
        raise _refused(path, str(exc)) from exc

    entries = []
    for position, place in enumerate(images):
        pair, second = divmod(position, 2)
        identity = f"pair-{pair:04d}" if same[pair] else f"pair-{pair:04d}-{'ab'[second]}"
        metadata = {"pair": str(pair), "same": str(int(same[pair]))}
        if place.length:
            spans = ((place.offset, place.length),)
            entries.append(Entry(path.name, identity, None, metadata, str(position), spans))
    if not entries:
        raise _refused(path, "it has no images")
    empty = len(images) - len(entries)
    return Manifest(path.parent, grouped(entries), COLUMNS, left_out={EMPTY: empty} if empty else {})


def _parts(value: Any) -> tuple[list[Place], list[int]]:
    """The two lists of a set, once they are found to be what they must."""
    if not isinstance(value, (tuple, list)) or isinstance(value, Place) or len(value) != 2:
        raise _Unreadable("its pickle is not a tuple of two lists")
    images, same = value
    if not isinstance(images, (tuple, list)) or not all(isinstance(image, Place) for image in images):
        raise _Unreadable("the first part of its tuple is not a list of bytes")
    if not isinstance(same, (tuple, list)) or not all(type(item) in (bool, int) for item in same):
        raise _Unreadable("the second part of its tuple is not a list of truth values")
    if not set(same) <= {0, 1}:
        raise _Unreadable(f"its truth values must be 0 or 1, not {max(same, key=abs)}")
    if len(images) != 2 * len(same):
        raise _Unreadable(f"it has {len(images)} images for {len(same)} pairs, which must be two each")
    return list(images), list(same)


class _Machine:
    """The part of the pickle machine that needs no code: a stack, marks into it and a memo."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.size = os.fstat(stream.fileno()).st_size
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """What the pickle describes, with a `Place` for all bytes."""
        start = self.read(1) if self.size else b""
        if start not in STARTS:
            raise _Unreadable("it is no pickle" if start else "it is empty")
        self.stream.seek(0)
        while (code := self.read(1)) != pickle.STOP:
            if code not in STEPS:
                raise _Unreadable(self.why_not(code))
            try:
                STEPS[code](self)
            except (IndexError, KeyError, ValueError, AttributeError) as exc:
                raise _Unreadable(f"its pickle is damaged before byte {self.stream.tell()}") from exc
        if len(self.stack) != 1:
            raise _Unreadable(f"its pickle ends with {len(self.stack)} values, not one")
        return self.stack[0]

    def why_not(self, code: bytes) -> str:
        """The reason to refuse an instruction that is not among `STEPS`."""
        at = self.stream.tell() - 1
        if code not in NAMES:
            return f"its pickle is damaged at byte {at}"
        wanted = ""
        if code == pickle.GLOBAL:
            module, name = self.line(), self.line()
            wanted = f" of {ascii(module + b'.' + name)[2:-1]}"
        if code == pickle.STRING or wanted == " of _codecs.encode":
            return f"its images are written as escaped text, not as bytes: {REWRITE}"
        return (
            f"its pickle has the instruction {NAMES[code]}{wanted} at byte {at}, which lists of bytes and "
            "truth values do not need, and nothing else is loaded"
        )

    def read(self, length: int) -> bytes:
        data = self.stream.read(length)
        if len(data) < length:
            raise _Unreadable(f"it is cut off after {self.size} bytes")
        return data

    def number(self, length: int, signed: bool = False) -> int:
        return int.from_bytes(self.read(length), "little", signed=signed)

    def line(self) -> bytes:
        line = self.stream.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise _Unreadable(f"its pickle is cut off or damaged before byte {self.stream.tell()}")
        return line.rstrip(b"\r\n")

    def place(self, length: int) -> None:
        """Push the place of the bytes that follow, and pass over them."""
        if length < 0:
            raise ValueError(length)
        offset = self.stream.tell()
        if offset + length > self.size:
            raise _Unreadable(f"it is cut off after {self.size} bytes")
        self.stack.append(Place(offset, length))
        self.stream.seek(length, os.SEEK_CUR)

    def integer(self) -> None:
        line = self.line()
        self.stack.append({b"00": False, b"01": True}.get(line, int(line)))

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        if mark > len(self.stack):
            raise IndexError(mark)
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def last(self, number: int) -> tuple[Any, ...]:
        return tuple(self.stack.pop() for _ in range(number))[::-1]

    def append(self, items: Sequence[Any]) -> None:
        self.stack[-1].extend(items)

    def store(self, key: int) -> None:
        self.memo[key] = self.stack[-1]


Step = Callable[[_Machine], object]

STEPS: dict[bytes, Step] = {
    pickle.PROTO: lambda m: m.read(1),
    pickle.FRAME: lambda m: m.read(8),
    pickle.MARK: lambda m: m.marks.append(len(m.stack)),
    pickle.SHORT_BINBYTES: lambda m: m.place(m.number(1)),
    pickle.BINBYTES: lambda m: m.place(m.number(4)),
    pickle.BINBYTES8: lambda m: m.place(m.number(8)),
    pickle.BYTEARRAY8: lambda m: m.place(m.number(8)),
    pickle.SHORT_BINSTRING: lambda m: m.place(m.number(1)),
    pickle.BINSTRING: lambda m: m.place(m.number(4, signed=True)),
    pickle.NEWTRUE: lambda m: m.stack.append(True),
    pickle.NEWFALSE: lambda m: m.stack.append(False),
    pickle.INT: lambda m: m.integer(),
    pickle.BININT: lambda m: m.stack.append(m.number(4, signed=True)),
    pickle.BININT1: lambda m: m.stack.append(m.number(1)),
    pickle.BININT2: lambda m: m.stack.append(m.number(2)),
    pickle.EMPTY_LIST: lambda m: m.stack.append([]),
    pickle.LIST: lambda m: m.stack.append(m.since_mark()),
    pickle.APPEND: lambda m: m.append(m.last(1)),
    pickle.APPENDS: lambda m: m.append(m.since_mark()),
    pickle.EMPTY_TUPLE: lambda m: m.stack.append(()),
    pickle.TUPLE: lambda m: m.stack.append(tuple(m.since_mark())),
    pickle.TUPLE1: lambda m: m.stack.append(m.last(1)),
    pickle.TUPLE2: lambda m: m.stack.append(m.last(2)),
    pickle.TUPLE3: lambda m: m.stack.append(m.last(3)),
    pickle.PUT: lambda m: m.store(int(m.line())),
    pickle.BINPUT: lambda m: m.store(m.number(1)),
    pickle.LONG_BINPUT: lambda m: m.store(m.number(4)),
    pickle.MEMOIZE: lambda m: m.store(len(m.memo)),
    pickle.GET: lambda m: m.stack.append(m.memo[int(m.line())]),
    pickle.BINGET: lambda m: m.stack.append(m.memo[m.number(1)]),
    pickle.LONG_BINGET: lambda m: m.stack.append(m.memo[m.number(4)]),
}
"""What each known instruction does, by its code."""

STARTS = (pickle.PROTO, pickle.MARK, pickle.EMPTY_LIST, pickle.GLOBAL)
NAMES = {item.code.encode("latin-1"): item.name for item in opcodes}


def _refused(file: Path, reason: str) -> RequestError:
    return RequestError(f"DATA must be a pickle of (images, is_same), got {file}: {reason}")

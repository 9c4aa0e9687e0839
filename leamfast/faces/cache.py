"""What a detector found in a picture, kept in the user's cache: the second run does no detection.

A value is a face (box, points, landmarks, score) or the reason why there is none that can be used. Its key is
a hash of all that it depends on: the picture's bytes and the part taken of it, the detector and its weights,
where it computed and with which libraries, the code here, and what is done with several faces. Values come
back bit for bit, and several processes may read and write at once. A cache that is damaged or locked never
fails a run: it is set aside, or not used, with one note.
"""

import hashlib
import os
import sqlite3
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import numpy as np

from leamfast.datasets.entry import Rect
from leamfast.faces.alignment import FaceError
from leamfast.faces.detection import DetectorSpec
from leamfast.faces.selection import Detection, Scores

__all__ = ["CODE", "FaceCache", "Picture", "cache_file", "face_cache"]

CODE = 1
"""Version of our detection, selection and decoding of pictures: to be raised by who changes a result."""

LIMIT = 200_000_000
"""Bytes above which the values that were not used for longest are deleted."""

TIMEOUT = 5.0  # seconds that a writer waits for another
FRESH = 86_400.0  # seconds for which a value that was used counts as just used, so that reading seldom writes
PACKAGES = ("torch", "pyfacer", "dlib", "dlib-bin", "opencv-python", "opencv-python-headless", "pillow")

Picture = tuple[str, Rect | None]
"""SHA-1 of the bytes that a picture was decoded from, and the part of the picture that was taken."""

Done = TypeVar("Done")

_FACE = struct.Struct("<4f10fd3d?")
_LANDMARKS = 68 * 2 * 4


class FaceCache:
    """Detections of one detector in a file of SQLite, which is opened at first use.

    Args:
        depends: what the detector's results depend on besides the picture, as words.
        file: the file; its folder is made.
        note: takes a sentence when the cache cannot be used.
    """

    def __init__(self, depends: Iterable[str], file: Path, note: Callable[[str], None] | None = None) -> None:
        self.file = file
        self._depends = "\0".join(depends)
        self._note = note or _to_stderr
        self._lock = threading.Lock()
        self._opened: tuple[int, sqlite3.Connection] | None = None
        self._inode = -1
        self._off = self._replaced = False

    def look_up(self, pictures: Sequence[Picture], faces: str) -> list[Detection | FaceError | None]:
        """What is known of each picture; None where nothing is."""
        keys = [self._key(picture, faces) for picture in pictures]
        now = time.time()

        def read(connection: sqlite3.Connection) -> dict[bytes, bytes]:
            values, old = {}, []
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                for key, value, used in connection.execute(
                    f"SELECT key, value, used FROM found WHERE key IN ({marks})", part
                ):
                    values[key] = value
                    if used < now - FRESH:
                        old.append((now, key))
            if old:
                with connection:
                    connection.executemany("UPDATE found SET used = ? WHERE key = ?", old)
            return values

        values = self._safely(read) or {}
        return [_unpack(key, values[key]) if key in values else None for key in keys]

    def keep(self, found: Sequence[tuple[Picture, Detection | FaceError]], faces: str) -> None:
        """Remember what was found in pictures."""
        now = time.time()
        rows = []
        for picture, face in found:
            key = self._key(picture, faces)
            rows.append((key, _pack(key, face), now))

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO found VALUES (?, ?, ?)", rows)
            _prune(connection)

        if rows:
            self._safely(write)

    def close(self) -> None:
        """Close the file; it is opened again where it is used again."""
        with self._lock:
            self._close()

    def _key(self, picture: Picture, faces: str) -> bytes:
        sha1, rect = picture
        return hashlib.sha256(f"{self._depends}\0{faces}\0{sha1}\0{rect}".encode()).digest()

    def _safely(self, work: Callable[[sqlite3.Connection], Done]) -> Done | None:
        """Do something with the file; None, and a note at the first time, where it cannot be done."""
        with self._lock:
            while not self._off:
                try:
                    return work(self._connection())
                except (sqlite3.Error, OSError) as exc:
                    with suppress(sqlite3.Error):
                        self._close()
                    busy = isinstance(exc, (OSError, sqlite3.OperationalError))
                    if busy or self._replaced or not self._set_aside(exc):
                        self._off = True
                        self._note(f"face cache {self.file} is not used: {exc}")
        return None

    def _connection(self) -> sqlite3.Connection:
        if self._opened is not None and self._opened[0] != os.getpid():
            self._opened = None  # of the process that this one was forked from
        if self._opened is None:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            connection = sqlite3.connect(self.file, timeout=TIMEOUT, check_same_thread=False)
            self._opened = os.getpid(), connection
            self._inode = self.file.stat().st_ino
            for attempts_left in reversed(range(50)):
                try:
                    connection.execute("PRAGMA journal_mode = WAL")
                    break
                except sqlite3.OperationalError:
                    # Who meets another process at a new file is refused at once, whatever the time limit.
                    if not attempts_left:
                        raise
                    time.sleep(TIMEOUT / 50)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA journal_size_limit = 10000000")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS found (key BLOB PRIMARY KEY, value BLOB NOT NULL, "
                "used REAL NOT NULL) WITHOUT ROWID"
            )
        return self._opened[1]

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and opened[0] == os.getpid():
            opened[1].close()

    def _set_aside(self, reason: Exception) -> bool:
        """Rename a damaged file, unless another process has; false where that cannot be done."""
        self._replaced = True
        aside = self.file.with_name(f"{self.file.name}.damaged")
        try:
            if self.file.stat().st_ino == self._inode:
                self.file.replace(aside)
                for end in ("-wal", "-shm"):
                    self.file.with_name(self.file.name + end).unlink(missing_ok=True)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        self._note(f"face cache {self.file} was damaged ({reason}) and is set aside as {aside.name}")
        return True


def face_cache(
    spec: DetectorSpec, device: str = "cpu", note: Callable[[str], None] | None = None
) -> FaceCache | None:
    """The user's cache for a detector on a device; None where LEAMFAST_FACE_CACHE is `off`.

    Args:
        spec: the detector; its weights are hashed.
        device: what it computes on, in words (`processor_name`), with all that low bits depend on.
        note: as of `FaceCache`.
    """
    if os.environ.get("LEAMFAST_FACE_CACHE", "").lower() == "off":
        return None
    state = spec.weights.stat()
    weights = _sha256(spec.weights, state.st_size, state.st_mtime_ns)
    return FaceCache([str(CODE), spec.name, weights, device, *_versions()], cache_file(), note)


def cache_file() -> Path:
    """The file in the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "leamfast" / "faces.sqlite3"


@lru_cache(maxsize=8)
def _sha256(file: Path, size: int, time_ns: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _versions() -> list[str]:
    versions = [f"numpy {np.__version__}"]
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    return versions


def _prune(connection: sqlite3.Connection) -> None:
    """Delete what was not used for longest where the file holds more than `LIMIT`, down to 80% of it."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    held = (pages - free) * size
    if held > LIMIT:
        rows = connection.execute("SELECT COUNT(*) FROM found").fetchone()[0]
        surplus = rows - int(rows * 0.8 * LIMIT / held)
        with connection:
            connection.execute(
                "DELETE FROM found WHERE key IN (SELECT key FROM found ORDER BY used LIMIT ?)", (surplus,)
            )


def _pack(key: bytes, found: Detection | FaceError) -> bytes:
    if isinstance(found, FaceError):
        value = b"R" + str(found).encode()
    else:
        scores, marks = found.scores, found.landmarks
        numbers = [*found.box.tolist(), *found.points.ravel().tolist(), found.score]
        thresholds = scores.candidate, scores.threshold, scores.upright
        value = b"F" + _FACE.pack(*numbers, *thresholds, marks is not None)
        value += b"" if marks is None else np.ascontiguousarray(marks, "<f4").tobytes()
    return zlib.crc32(key + value).to_bytes(4, "little") + value


def _unpack(key: bytes, packed: bytes) -> Detection | FaceError | None:
    """None where the value is damaged, or that of another key."""
    if not isinstance(packed, bytes):
        return None
    value = packed[4:]
    if zlib.crc32(key + value).to_bytes(4, "little") != packed[:4]:
        return None
    if value[:1] == b"R":
        return FaceError(value[1:].decode())
    marks = value[1 + _FACE.size :]
    if value[:1] != b"F" or len(value) not in (1 + _FACE.size, 1 + _FACE.size + _LANDMARKS):
        return None
    *numbers, candidate, threshold, upright, landmarks = _FACE.unpack_from(value, 1)
    return Detection(
        box=np.array(numbers[:4], np.float32),
        points=np.array(numbers[4:14], np.float32).reshape(5, 2),
        score=numbers[14],
        landmarks=np.frombuffer(marks, "<f4").astype(np.float32).reshape(68, 2) if landmarks else None,
        scores=Scores(candidate, threshold, upright),
    )


def _to_stderr(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)

"""Values by key in a file of the user's cache: SQLite, bit for bit, for several processes at once.

A cache that is damaged or locked never fails a run: it is set aside, or not used, with one note. Values show
people's faces, so that the file is its user's alone. A cache that is full drops values that were not used for
a day, those not used for longest first, and takes no more while there are none: a data set larger than the
cache would otherwise drive out each value before it is asked for again.
"""

import os
import sqlite3
import sys
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

__all__ = ["ValueCache", "cache_folder", "caches_are_on"]

TIMEOUT = 5.0  # seconds that a writer waits for another
FRESH = 86_400.0  # seconds for which a value that was used counts as just used, so that reading seldom writes
PATIENCE = 3  # times in a row that the file may be locked before it is left alone

Done = TypeVar("Done")


class ValueCache:
    """Bytes by key, in a file that is opened at first use.

    Args:
        file: the file; its folder is made.
        limit: bytes above which values go.
        note: takes a sentence when the cache cannot be used.
    """

    def __init__(self, file: Path, limit: int, note: Callable[[str], None] | None = None) -> None:
        self.file, self.limit = file, limit
        self._note = note or _to_stderr
        self._lock = threading.Lock()
        self._opened: tuple[int, sqlite3.Connection] | None = None
        self._inode = -1
        self._off = self._replaced = False
        self._refused = 0

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Values of those keys that are there, whole."""
        now = time.time()

        def read(connection: sqlite3.Connection) -> dict[bytes, bytes]:
            values, old = {}, []
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                for key, packed, used in connection.execute(
                    f"SELECT key, value, used FROM found WHERE key IN ({marks})", part
                ):
                    if (value := _unpack(key, packed)) is not None:
                        values[key] = value
                    if used < now - FRESH:
                        old.append((now, key))
            if old:
                with connection:
                    connection.executemany("UPDATE found SET used = ? WHERE key = ?", old)
            return values

        return (self._safely(read) or {}) if keys else {}

    def put(self, values: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep values by their keys."""
        now = time.time()
        rows = [(key, zlib.crc32(key + value).to_bytes(4, "little") + value, now) for key, value in values]

        def write(connection: sqlite3.Connection) -> None:
            if _has_room(connection, self.limit):
                with connection:
                    connection.executemany(
                        "INSERT OR REPLACE INTO found (key, value, used) VALUES (?, ?, ?)", rows
                    )

        if rows:
            self._safely(write)

    def close(self) -> None:
        """Close the file; it is opened again where it is used again."""
        with self._lock:
            self._close()

    def _safely(self, work: Callable[[sqlite3.Connection], Done]) -> Done | None:
        """Do something with the file; None, and a note at the first time, where it cannot be done."""
        with self._lock:
            while not self._off:
                try:
                    done = work(self._connection())
                    self._refused = 0
                    return done
                except (sqlite3.Error, OSError) as exc:
                    with suppress(sqlite3.Error):
                        self._close()
                    self._refused += 1
                    if "locked" in str(exc) and self._refused < PATIENCE:
                        return None
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
            os.close(os.open(self.file, os.O_CREAT | os.O_RDWR, 0o600))  # its companions get the same mode
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
                "CREATE TABLE IF NOT EXISTS found (key BLOB PRIMARY KEY, used REAL NOT NULL, "
                "value BLOB NOT NULL)"
            )
            connection.execute("CREATE INDEX IF NOT EXISTS by_use ON found (used)")
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


def caches_are_on() -> bool:
    """Whether LEAMFAST_FACE_CACHE is anything but `off`."""
    return os.environ.get("LEAMFAST_FACE_CACHE", "").lower() != "off"


def cache_folder() -> Path:
    """Leamfast's folder in the user's cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "leamfast"


def _has_room(connection: sqlite3.Connection, limit: int) -> bool:
    """Whether the file holds less than `limit`, once values that were not used for `FRESH` have gone."""
    for _ in range(2):
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        held = (pages - free) * size
        if held < limit:
            return True
        rows = connection.execute("SELECT COUNT(*) FROM found").fetchone()[0]
        surplus = rows - int(rows * 0.8 * limit / held)
        with connection:
            connection.execute(
                "DELETE FROM found WHERE rowid IN "
                "(SELECT rowid FROM found WHERE used < ? ORDER BY used LIMIT ?)",
                (time.time() - FRESH, surplus),
            )
    return False


def _unpack(key: bytes, packed: bytes) -> bytes | None:
    """None where the value is damaged, or that of another key."""
    if not isinstance(packed, bytes):
        return None
    value = packed[4:]
    return value if zlib.crc32(key + value).to_bytes(4, "little") == packed[:4] else None


def _to_stderr(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)

"""Files that appear whole or not at all."""

import errno
import os
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["StorageError", "StorageFullError", "sweep", "write_atomically"]

SUFFIX = ".tmp"
OURS = re.compile(
    r"\.(part-\d+\.h5|pairs-[^/]+\.h5|occlusion-\d+\.h5|index\.h5|run\.toml|compare\.toml|occlude\.toml"
    r"|failures\.csv|\.probe-[0-9a-f]+\.tmp)"
    r"\.\d+-[0-9a-f]{8}\.tmp"
    r"|\.probe-[0-9a-f]+\.tmp"
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
AGAIN = "run the same command again (batch and align: with --resume)"
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class StorageError(OSError):
    """Results cannot be kept; what was finished before is whole."""


class StorageFullError(StorageError):
    """There is no room left for a result."""


def write_atomically(path: Path, *content: bytes | memoryview | Callable[[], bytes]) -> None:
    """Write a file under a temporary name of its own, make it durable, and rename it into place.

    Args:
        path: the final name; its folder exists.
        content: all of its bytes, in one piece or more; one that is still being made is asked for when those
            before it are written.

    Raises:
        StorageFullError: no room; neither the file nor a temporary one is left behind.
        StorageError: the folder refuses to be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.writelines(piece() if callable(piece) else piece for piece in content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if exc.errno in REFUSED:
            raise StorageError(
                exc.errno,
                f"{path.parent} refuses {path.name} ({exc.strerror}): make it writable and {AGAIN}",
            ) from exc
        if exc.errno in FULL:
            size = sum(len(piece) for piece in content if not callable(piece))
            raise StorageFullError(
                exc.errno,
                f"no room for {path.name} ({size:,} bytes): free some and {AGAIN}",
            ) from exc
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sweep(folder: Path) -> int:
    """Remove temporary files that a killed process left in a folder; returns how many."""
    leftovers = [path for path in folder.glob(f".*{SUFFIX}") if OURS.fullmatch(path.name) and path.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)

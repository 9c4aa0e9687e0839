"""Files that appear whole or not at all."""

import errno
import os
import re
import uuid
from pathlib import Path

__all__ = ["StorageFullError", "sweep", "write_atomically"]

SUFFIX = ".tmp"
OURS = re.compile(
    r"\.(part-\d+\.h5|pairs-[^/]+\.h5|index\.h5|run\.toml|compare\.toml|failures\.csv)"
    r"\.\d+-[0-9a-f]{8}\.tmp"
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StorageFullError(OSError):
    """There is no room left for a result; what was finished before is whole."""


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name of its own, make it durable, and rename it into place.

    Args:
        path: the final name; its folder exists.
        content: all of its bytes.

    Raises:
        StorageFullError: no room; neither the file nor a temporary one is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        if exc.errno in FULL:
            raise StorageFullError(
                exc.errno,
                f"no room for {path.name} ({len(content):,} bytes): free some and go on with --resume",
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

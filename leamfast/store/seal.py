"""A hash at the end of a file, where HDF5 does not look.

HDF5 trusts what it reads: one byte that a disk has changed can end the process that opens the file, so
damage has to be found before HDF5 sees it.
"""

from hashlib import sha256
from pathlib import Path

from leamfast.store.atomic import write_atomically
from leamfast.store.beside import beside

__all__ = ["broken", "seal", "write_sealed"]

MAGIC = b"leamfast-sha256:"
LENGTH = len(MAGIC) + sha256().digest_size


def seal(content: bytes) -> bytes:
    """What goes behind the content of a file."""
    return MAGIC + sha256(content).digest()


def write_sealed(path: Path, content: bytes) -> None:
    """Write a file and its seal atomically; the hash is worked out while the disk takes the content."""
    with beside(seal, content) as sealed:
        write_atomically(path, content, sealed)


def broken(path: Path) -> bool:
    """Whether a file is not what was sealed; one that HDF5 has written to since has no seal, and is not.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size - LENGTH
    with path.open("rb") as file:
        file.seek(max(0, size))
        tail = file.read()
        if not tail.startswith(MAGIC):
            return MAGIC in tail  # cut off within the seal
        file.seek(0)
        found = sha256()
        while size and (block := file.read(min(size, 1 << 20))):
            found.update(block)
            size -= len(block)
    return found.digest() != tail[len(MAGIC) :]

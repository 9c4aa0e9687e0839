"""How many bytes a run's folder will take, from the arrays of one small part.

Numbers take what their chunks take, text what HDF5's heap needs for it, and every part the same again for its
tables of contents: that much is measured, as what the file of the small part has besides its values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leamfast.store.arrays import LEADING, Array, chunk_rows

__all__ = ["PartSizes", "folder_bytes", "part_sizes", "value_bytes"]

TEXT = 32  # bytes of a string's reference and of its head in the heap
INDEX_SHARE = 0.6  # an index's tables of contents, as a share of a part's: measured
SOURCE = 100  # bytes of one part in one virtual data set: measured

Counts = Mapping[str, float]
"""How long leading dimensions are: `row`, `person`, `each`, `each_pair`."""


@dataclass(frozen=True)
class _Size:
    """What one array takes.

    Attributes:
        leading: its first dimension; empty for an array that is the same in every part.
        row_bytes: of one entry along it, or of the whole array.
        text: whether it is text, which stands in the index too.
        chunked: whether it is stored in chunks, of which the last is stored whole.
    """

    leading: str
    row_bytes: float
    text: bool
    chunked: bool


@dataclass(frozen=True)
class PartSizes:
    """What the parts of a run take.

    Attributes:
        arrays: one of each array.
        contents: bytes of a part besides its values.
    """

    arrays: tuple[_Size, ...]
    contents: float


def part_sizes(arrays: Mapping[str, Array], file_bytes: int) -> PartSizes:
    """What parts take, going by one.

    Args:
        arrays: of the part.
        file_bytes: of its file.
    """
    sizes, counts = [], dict.fromkeys(LEADING, 0)
    for array in arrays.values():
        leading, length = array.dims[0], len(array.values)
        if leading in LEADING:
            counts[leading] = length
        else:
            leading = ""
        entries = max(1, length) if leading else 1
        if array.is_text:
            words = sum(len(str(word).encode()) for word in array.values.ravel())
            sizes.append(_Size(leading, (words + TEXT * length) / entries, True, False))
        else:
            whole = array.values.itemsize * _product(array.values.shape[1 if leading else 0 :])
            sizes.append(_Size(leading, whole, False, array.values.ndim > 1))
    return PartSizes(tuple(sizes), max(0, file_bytes - value_bytes(sizes, counts)))


def value_bytes(sizes: Sequence[_Size], counts: Counts) -> float:
    """What the values of a part take, its leading dimensions being so long."""
    return sum(_bytes(size, counts) for size in sizes)


def folder_bytes(sizes: PartSizes, parts: Sequence[Counts]) -> float:
    """What a result folder takes: its parts, and the index over them.

    Args:
        sizes: see `part_sizes`.
        parts: how long the leading dimensions of each part are.
    """
    text = [size for size in sizes.arrays if size.text]
    written = sum(sizes.contents + value_bytes(sizes.arrays, counts) for counts in parts)
    repeated = sum(value_bytes(text, counts) for counts in parts)
    sources = SOURCE * len(parts) * (len(sizes.arrays) - len(text))
    return written + repeated + sources + INDEX_SHARE * sizes.contents


def _bytes(size: _Size, counts: Counts) -> float:
    if not size.leading:
        return size.row_bytes
    rows = counts[size.leading]
    if size.chunked and size.row_bytes and rows >= 1:
        chunk = chunk_rows(int(size.row_bytes), int(rows))
        rows = chunk * -(-rows // chunk)
    return rows * size.row_bytes


def _product(shape: Sequence[int]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total

"""How the rows of a shard are cut into batches: whole identities, as many as fit."""

from collections.abc import Sequence

__all__ = ["pack"]


def pack(identities: Sequence[int], size: int) -> list[list[int]]:
    """Batches of row numbers.

    Rows of one identity stand together. Identities are packed in order while they fit; one that is larger
    than a batch has batches of its own.

    Args:
        identities: identity of each row, equal ones adjacent.
        size: how many rows a batch may have.

    Example:
        >>> pack([0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 3], 4)
        [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9], [10]]
    """
    batches: list[list[int]] = []
    current: list[int] = []
    start = 0
    while start < len(identities):
        stop = start
        while stop < len(identities) and identities[stop] == identities[start]:
            stop += 1
        rows = list(range(start, stop))
        if current and len(current) + len(rows) > size:
            batches.append(current)
            current = []
        if len(rows) > size:
            batches += [rows[i : i + size] for i in range(0, len(rows), size)]
        else:
            current += rows
        start = stop
    if current:
        batches.append(current)
    return batches

"""Many tests at once: p-values adjusted so that a family of them rarely says anything false at all."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

__all__ = ["adjusted", "holm"]

Row = TypeVar("Row", bound=Any)


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values that hold the chance of a single false one in the family below the level.

    With the m values in ascending order, p_(i) becomes the largest (m - j + 1) p_(j) of all j up to i, and
    at most 1. No independence is needed. NaN stays NaN and is no member of the family.

    Args:
        p: of one family, (m,).

    Reference: Holm, Scandinavian Journal of Statistics 6(2), 1979.

    >>> holm(np.array([0.01, 0.04, 0.03, np.nan])).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    found = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]  # NaN comes last
    factors = np.arange(len(order), 0, -1)
    found[order] = np.maximum.accumulate(p[order] * factors).clip(max=1)
    return found


def adjusted(rows: Sequence[Row], family: Callable[[Row], Hashable]) -> list[Row]:
    """Rows with their `p_adjusted`, by `holm` over the `p` of all rows of one family.

    Args:
        rows: dataclasses with `p` and `p_adjusted`.
        family: what rows of one family have in common.
    """
    members: dict[Hashable, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(family(row), []).append(number)
    found = np.full(len(rows), np.nan)
    for numbers in members.values():
        found[numbers] = holm(np.array([rows[number].p for number in numbers]))
    return [replace(row, p_adjusted=float(p)) for row, p in zip(rows, found, strict=True)]

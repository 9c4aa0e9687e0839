"""Rows of a run by what its metadata say: a column, or several crossed."""

from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from leamfast.errors import RequestError
from leamfast.store.results import Results

__all__ = ["CROSS", "Strata", "group_columns", "metadata_columns", "strata_of"]

CROSS = " x "
"""Between the columns of a crossing, and between their values."""

NOT_METADATA = frozenset({"path", "sha1", "identity", "position", "name", "images"})
"""What `/image` and `/identity` hold beside metadata."""

FEWEST_VALUES, MOST_VALUES = 2, 12
"""Different values of a column that is looked at unasked: one says nothing, many leave few people each."""

MOST_GROUPS = 200
"""Of what is asked for: with more the column holds numbers or names, and no group has enough people."""


@dataclass(frozen=True, eq=False)
class Strata:
    """Which group each row is in.

    Attributes:
        columns: the columns, joined by `CROSS`.
        groups: their values that occur, ascending.
        code: index of `groups` of each row, (row,) int64; -1 where a column says nothing of it.
        whole: whether all rows of an identity that are in a group are in the same.
    """

    columns: str
    groups: tuple[str, ...]
    code: np.ndarray
    whole: bool


def metadata_columns(results: Results) -> tuple[str, ...]:
    """Metadata columns of a run, those of images first; those of identities say the same of all images."""
    return tuple(dict.fromkeys(column for of in ("image", "identity") for column in _texts(results, of)))


def group_columns(results: Results) -> list[tuple[str, ...]]:
    """Columns that are looked at unasked: of identities, with 2 to 12 different values, each by itself."""
    found: list[tuple[str, ...]] = []
    for column in _texts(results, "identity"):
        values = {str(value) for value in results.text(f"identity/{column}")} - {""}
        if FEWEST_VALUES <= len(values) <= MOST_VALUES:
            found.append((column,))
    return found


def strata_of(results: Results, columns: Sequence[str]) -> Strata:
    """The groups of a column, or of several crossed.

    Args:
        results: the run.
        columns: at least one metadata column.

    Raises:
        RequestError: a column that there is not, none, or one with too many different values.
    """
    known = metadata_columns(results)
    wrong = [column for column in columns if column not in known]
    if wrong or not columns:
        there = f"there are {', '.join(known)}" if known else "the run has no metadata columns"
        raise RequestError(f"groups must name metadata columns, got {', '.join(wrong) or 'none'}: {there}")
    values = [_values(results, column) for column in columns]
    said = np.all([value != "" for value in values], axis=0)
    names = values[0]
    for value in values[1:]:
        names = names + CROSS + value
    groups, code = np.unique(names[said], return_inverse=True)
    if len(groups) > MOST_GROUPS:
        raise RequestError(
            f"groups must be at most {MOST_GROUPS}, {CROSS.join(columns)} has {len(groups)} values: "
            "put them into classes in a column of the manifest"
        )
    found = np.full(len(results), -1, np.int64)
    found[said] = code
    person = np.unique(results.identities, return_inverse=True)[1][said]
    whole = len(np.unique(person * max(1, len(groups)) + code)) == len(np.unique(person))
    return Strata(CROSS.join(columns), tuple(map(str, groups)), found, bool(whole))


def _texts(results: Results, of: str) -> list[str]:
    group = results.file[of]
    return [
        name
        for name in group
        if name not in NOT_METADATA and group[name].ndim == 1 and h5py.check_string_dtype(group[name].dtype)
    ]


def _values(results: Results, column: str) -> np.ndarray:
    """Text of each row, (row,); spaces around it do not count."""
    if column in _texts(results, "image"):
        values = results.text(f"image/{column}")
    else:
        values = results.text(f"identity/{column}")[results.identities]
    return np.array([str(value).strip() for value in values], dtype=object)

"""The lists of Labeled Faces in the Wild.

`pairs.txt` begins with `folds<tab>n` (or one number n, for one fold) and lists, for every fold, n pairs of
one person (`name<tab>i<tab>j`) and n pairs of two (`name<tab>i<tab>other<tab>j`). `people.txt` begins with
the number of folds, each of which is a line with the number of its people and a line `name<tab>images` for
each of them; without folds it begins with the number of people. Format: the README of LFW,
vis-www.cs.umass.edu/lfw (Huang et al., 2007).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from leamfast.errors import RequestError

__all__ = ["Image", "listed_pairs", "listed_people"]

NUMBER = re.compile(r"0*[1-9][0-9]{0,5}")

Image = tuple[str, int]
"""A person's name and the number of the image."""

Line = tuple[str, list[str]]
"""Where a line stands ("pairs.txt, line 7") and its columns."""


def listed_pairs(file: Path) -> list[tuple[Image, Image]]:
    """Both images of each pair of a list, in its order.

    Raises:
        RequestError: a line is malformed, or a count is wrong.
    """
    lines = list(_lines(file))
    where, first = lines[0] if lines else (f"{file}, line 1", [])
    if len(first) not in (1, 2):
        raise _broken(where, f"the number of folds and of pairs, or one number, got {len(first)} columns")
    sizes = [_number(where, cell) for cell in first]
    folds, each = (1, *sizes) if len(sizes) == 1 else sizes
    pairs = []
    same = 0
    for where, cells in lines[1:]:
        if len(cells) not in (3, 4):
            raise _broken(where, f"name, i, j or name, i, name, j, got {len(cells)} columns")
        same += len(cells) == 3
        other = cells[0] if len(cells) == 3 else _name(where, cells[2])
        one = (_name(where, cells[0]), _number(where, cells[1]))
        if len(cells) == 4 and one[0] == other:
            raise _broken(where, f"two people in four columns, got {other!r} twice")
        pairs.append((one, (other, _number(where, cells[-1]))))
    for kind, got in (("one person", same), ("two people", len(pairs) - same)):
        if got != folds * each:
            raise RequestError(
                f"LFW list {file} must hold {folds * each} pairs of {kind} ({folds} x {each}), as its first "
                f"line says, got {got}: the list is cut off or its first line wrong"
            )
    return pairs


def listed_people(file: Path) -> list[tuple[str, int]]:
    """Each person of a list and how many images there are of them, in its order.

    Raises:
        RequestError: a line is malformed, or a count is wrong.
    """
    lines = list(_lines(file))
    counts = [_number(where, cells[0]) for where, cells in lines[:2] if len(cells) == 1]
    folds = counts[0] if len(counts) == 2 else 1
    people: list[tuple[str, int]] = []
    ends: list[tuple[int, int]] = []  # of the folds: number of people said to be there, people before it
    for where, cells in lines[1:] if len(counts) == 2 else lines:
        if len(cells) == 1:
            ends.append((_number(where, cells[0]), len(people)))
        elif len(cells) == 2 and ends:
            people.append((_name(where, cells[0]), _number(where, cells[1])))
        else:
            raise _broken(where, f"name and number of images after a count, got {len(cells)} columns")
    if len(ends) != folds:
        raise RequestError(
            f"LFW list {file} must hold {folds} folds, as its first line says, got {len(ends)}"
        )
    starts = [start for _, start in ends[1:]] + [len(people)]
    for fold, ((said, start), end) in enumerate(zip(ends, starts, strict=True), start=1):
        if end - start != said:
            raise RequestError(
                f"LFW list {file} must hold {said} people in fold {fold}, as its count says, "
                f"got {end - start}"
            )
    return people


def _lines(file: Path) -> Iterator[Line]:
    """The lines that are not blank, cut at tabs, or at spaces where a line has no tab."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise RequestError(f"LFW list must be UTF-8, got {file}: save it in that encoding") from exc
    for number, line in enumerate(text.split("\n"), start=1):
        cells = line.strip().split("\t") if "\t" in line.strip() else line.split()
        if cells:
            yield f"{file}, line {number}", [cell.strip() for cell in cells]


def _number(where: str, cell: str) -> int:
    if not NUMBER.fullmatch(cell):
        raise _broken(where, f"numbers from 1 to 999999 where numbers belong, got {cell!r}")
    return int(cell)


def _name(where: str, cell: str) -> str:
    if cell in ("", ".", "..") or "/" in cell or "\0" in cell:
        raise _broken(where, f"names of folders where names belong, got {cell!r}")
    return cell


def _broken(where: str, rule: str) -> RequestError:
    return RequestError(
        f"LFW list {where}, must have {rule} (--format folders reads a folder without its lists)"
    )

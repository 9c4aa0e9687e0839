"""Labeled Faces in the Wild, and sets laid out like it: `Name/Name_0001.jpg` and lists of pairs or people."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from leamfast.datasets.decoding import IMAGE_SUFFIXES
from leamfast.datasets.entry import Entry
from leamfast.datasets.folders import names_in
from leamfast.datasets.lfw_lists import listed_pairs, listed_people
from leamfast.datasets.manifest import Manifest
from leamfast.errors import RequestError

__all__ = ["Pair", "is_lfw", "read_lfw", "read_pairs"]

PAIRS, PEOPLE = "pairs", "people"
LISTS = ("pairs.txt", "people.txt")
MISSING = "image not on disk"
UNNAMED = "image that no list names (all are taken with --format folders)"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images that a verification protocol compares.

    Attributes:
        first: path of one image, relative to the folder of the list.
        second: path of the other.
        same: whether they show one person.
    """

    first: str
    second: str
    same: bool


@dataclass(slots=True)
class _Wanted:
    """The images of a person that lists name: those up to a number, and some more."""

    up_to: int = 0
    numbers: set[int] = field(default_factory=set)


def is_lfw(path: Path) -> bool:
    """Whether a path is a file `pairs.txt` or `people.txt`, or a folder that holds one."""
    if path.is_dir():
        return any((path / name).is_file() for name in LISTS)
    return path.name in LISTS


def read_lfw(path: Path) -> Manifest:
    """List the images that the lists name: those of the pairs, and images 1..n of the people.

    Args:
        path: the folder of the people's folders, with `pairs.txt`, `people.txt` or both; or one list in it,
            whose name then begins with `pairs` or `people` (`pairsDevTest.txt`). Images may have any image
            suffix.

    Returns:
        People as the lists first name them, the images of each by number; `left_out` counts those that are
        not on disk, and pictures of these people that no list names.

    Raises:
        RequestError: there is no list, a list is malformed or its counts are wrong, or no image is on disk.
    """
    lists = _lists(path)
    root = lists[0].parent
    wanted: dict[str, _Wanted] = {}
    for file in lists:
        if file.name.startswith(PEOPLE):
            for name, images in listed_people(file):
                person = wanted.setdefault(name, _Wanted())
                person.up_to = max(person.up_to, images)
        else:
            for pair in listed_pairs(file):
                for name, number in pair:
                    wanted.setdefault(name, _Wanted()).numbers.add(number)
    entries = []
    total = unnamed = 0
    for name, person in wanted.items():
        beyond = sorted(number for number in person.numbers if number > person.up_to)
        total += person.up_to + len(beyond)
        pictures = _pictures(root, name)
        # A list may say 999999: no more numbers are tried than there are pictures.
        there = sorted({number for number in map(_number_of, pictures) if 1 <= number <= person.up_to})
        stems = (_stem(name, number) for number in (*there, *beyond))
        named = [Entry(f"{name}/{pictures[stem]}", name) for stem in stems if stem in pictures]
        unnamed += len(pictures) - len(named)
        entries += named
    if not entries:
        raise RequestError(
            f"DATA must hold the images that its lists name, got {root} with none of {total}: "
            "put the list beside the people's folders"
        )
    missing = total - len(entries)
    left_out = {MISSING: missing, UNNAMED: unnamed}
    return Manifest(root, tuple(entries), left_out={reason: n for reason, n in left_out.items() if n})


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """The pairs of a protocol, in the order of the file.

    Args:
        path: the file, or the folder that holds it as `pairs.txt`.

    Returns:
        Paths as the entries of `read_lfw` have them; an image that is not on disk is named with `.jpg`.

    Raises:
        RequestError: there is no such file, it is malformed, or its counts are wrong.
    """
    file = path / LISTS[0] if path.is_dir() else path
    if not file.is_file():
        raise RequestError(
            f"pairs must be a file in the layout of LFW's pairs.txt, got {file}: it is missing"
        )
    pictures: dict[str, dict[str, str]] = {}

    def place(name: str, number: int) -> str:
        if name not in pictures:
            pictures[name] = _pictures(file.parent, name)
        stem = _stem(name, number)
        return f"{name}/{pictures[name].get(stem, f'{stem}.jpg')}"

    return tuple(Pair(place(*one), place(*two), one[0] == two[0]) for one, two in listed_pairs(file))


def _lists(path: Path) -> list[Path]:
    files = [path / name for name in LISTS if (path / name).is_file()] if path.is_dir() else [path]
    if not files or not files[0].name.startswith((PAIRS, PEOPLE)):
        raise RequestError(f"DATA must be a folder with {' or '.join(LISTS)}, or such a list, got {path}")
    return files


def _stem(name: str, number: int) -> str:
    return f"{name}_{number:04d}"


def _number_of(stem: str) -> int:
    """The number that ends a stem, 0 where there is none."""
    number = stem.rpartition("_")[2]
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 10 else 0


def _pictures(root: Path, name: str) -> dict[str, str]:
    """The image files in a person's folder by their names without suffix; of several the first by name."""
    parts = [os.path.splitext(file) for file in sorted(names_in(f"{root}/{name}"), reverse=True)]
    return {stem: stem + suffix for stem, suffix in parts if suffix.lower() in IMAGE_SUFFIXES}

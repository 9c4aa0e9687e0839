"""Names of folders and files for people and pictures whose names come from anywhere.

A name keeps the letters of every script. What a file system, a shell or a terminal may take for something
else becomes `_`: separators, control and formatting letters, a first dot or hyphen. A name that is too long
is cut, and one that is taken gets a number, `name-2`; two names are equal where a file system may say so,
whatever their case and however their accents are written. Names follow from their order alone.
"""

import os
import re
import unicodedata
from collections.abc import Iterable

from leamfast.datasets.decoding import IMAGE_SUFFIXES
from leamfast.datasets.entry import Entry

__all__ = ["MAX_BYTES", "Names", "crop_names", "folder_names", "safe_name"]

MAX_BYTES = 120
"""Longest name in UTF-8: with a number and a suffix still less than what any file system takes (143)."""

RESERVED = ("manifest.csv", "manifest.parquet", "failures.csv")
UNSAFE = re.compile(r'[\\/:*?"<>|]')
AT_EDGES = " ."


class Names:
    """Gives each thing a name of its own.

    Args:
        taken: names that are not to be given.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {_key(name) for name in taken}
        self._last: dict[str, int] = {}

    def give(self, wanted: str) -> str:
        """A safe name like the one that is wanted, which was not given before."""
        base = name = safe_name(wanted)
        number = self._last.get(_key(base), 1)
        while _key(name) in self._taken:
            number += 1
            name = f"{base}-{number}"
        self._last[_key(base)] = number
        self._taken.add(_key(name))
        return name


def safe_name(text: str) -> str:
    """A name for a file or a folder like some text: at most `MAX_BYTES` long, never empty or hidden."""
    letters = (_safe_letter(letter) for letter in unicodedata.normalize("NFC", text))
    name = "".join(letters).strip(" ")
    if name[:1] in (".", "-", "~"):
        name = f"_{name[1:]}"
    name = name.encode()[:MAX_BYTES].decode(errors="ignore").rstrip(AT_EDGES)
    return name or "_"


def folder_names(identities: Iterable[str]) -> dict[str, str]:
    """Identity -> name of its folder."""
    names = Names(RESERVED)
    return {identity: names.give(identity) for identity in identities}


def crop_names(entries: Iterable[Entry]) -> list[str]:
    """Names of the crops of an identity's images: those of their files, ending in .png."""
    names = Names()
    return [f"{names.give(_stem(entry.inside or entry.path))}.png" for entry in entries]


def _stem(path: str) -> str:
    stem, suffix = os.path.splitext(path.rpartition("/")[2])
    return stem if suffix.lower() in IMAGE_SUFFIXES else stem + suffix


def _safe_letter(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind == "Zs":
        return " "
    return "_" if kind[0] in "CZ" or UNSAFE.match(letter) else letter


def _key(name: str) -> str:
    """Equal for names that some file system does not tell apart."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", name).casefold())

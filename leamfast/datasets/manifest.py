"""Manifests: the images of a data set as one ordered list, each with its identity.

The entries of an identity stand together, in the order in which identities first appear; this order is the
manifest order on which rows, shards and seeds rest. No image is opened here.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from leamfast.datasets.entry import Entry

__all__ = ["Manifest", "grouped", "is_plain"]

SURROGATES = re.compile("[\ud800-\udfff]")
"""What the bytes of a file name that is no UTF-8 become in Python."""


@dataclass(frozen=True)
class Manifest:
    """The images of a data set, grouped by identity.

    Attributes:
        root: folder that relative paths start from.
        entries: the images, in manifest order.
        columns: names of the metadata columns, in the order of the file.
        ignored: files of an image folder that were passed over, having no image suffix.
        left_out: what the data set lists and is not among the entries: reason -> number.
    """

    root: Path
    entries: tuple[Entry, ...]
    columns: tuple[str, ...] = ()
    ignored: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    @cached_property
    def identities(self) -> tuple[str, ...]:
        """Names of the persons, in manifest order."""
        return tuple(dict.fromkeys(entry.identity for entry in self.entries))

    def resolve(self, entry: Entry) -> Path:
        """Where the image of an entry lies."""
        return self.root / entry.path

    def resolve_label(self, entry: Entry) -> Path | None:
        """Where the region mask of an entry lies; None where it has none."""
        return None if entry.label is None else self.root / entry.label

    def sha256(self) -> str:
        """Hash of all entries in order, 64 hexadecimal digits; it does not depend on where the root lies."""
        digest = hashlib.sha256()
        for entry in self.entries:
            fields: list[Any] = [entry.name, entry.identity, entry.label, sorted(entry.metadata.items())]
            if entry.spans:
                fields.append(entry.spans)
            digest.update(json.dumps(fields).encode() + b"\n")
        return digest.hexdigest()


def is_plain(text: str) -> bool:
    """Whether tables and results can hold a text: it is UTF-8 without NUL bytes."""
    return "\0" not in text and (text.isascii() or not SURROGATES.search(text))


def grouped(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries of each identity together, identities by first appearance, otherwise in given order."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.identity, []).append(entry)
    return tuple(entry for group in groups.values() for entry in group)

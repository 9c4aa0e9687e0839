"""A run as pieces of work, of which one kind are shards of whole identities, in manifest order."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from leamfast.datasets.entry import Entry
from leamfast.datasets.manifest import Manifest

__all__ = ["Identity", "Piece", "Shard", "plan_pieces", "plan_shards"]


class Piece(Protocol):
    """What one worker computes in one go; picklable.

    Attributes:
        number: its place in the plan, by which it is known.
        amount: how much work it is, in what the progress counts.
        title: what the reader knows it by.
    """

    @property
    def number(self) -> int: ...

    @property
    def amount(self) -> int: ...

    @property
    def title(self) -> str: ...


@dataclass(frozen=True)
class Identity:
    """A person and the images that the manifest lists of them.

    Attributes:
        name: as the manifest writes it.
        first: position in the manifest of the first image; the others follow it.
        entries: the images.
    """

    name: str
    first: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Shard:
    """Whole identities that are computed together and stored as one part."""

    number: int
    identities: tuple[Identity, ...]

    @property
    def images(self) -> int:
        """How many images the manifest lists in this shard."""
        return sum(len(identity.entries) for identity in self.identities)

    @property
    def amount(self) -> int:
        """What progress counts: images."""
        return self.images

    @property
    def title(self) -> str:
        """What the reader knows it by."""
        return f"shard {self.number}"


def plan_shards(manifest: Manifest, shard_images: int) -> tuple[Shard, ...]:
    """Cut a manifest into shards.

    A shard is closed by the identity with which it reaches `shard_images`: the boundaries follow from the
    manifest and this number alone, never from who computes or how fast.
    """
    shards: list[Shard] = []
    members: list[Identity] = []
    first = 0
    for name, group in groupby(manifest.entries, key=lambda entry: entry.identity):
        entries = tuple(group)
        members.append(Identity(name, first, entries))
        first += len(entries)
        if _images(members) >= shard_images:
            shards.append(Shard(len(shards), tuple(members)))
            members = []
    if members:
        shards.append(Shard(len(shards), tuple(members)))
    return tuple(shards)


def plan_pieces(manifest: Manifest, shard_images: int) -> tuple[Shard, ...]:
    """Cut a manifest into shards of `shard_images` images, the last one of what is left.

    For work that needs no whole identities: a large one lies in several shards, a piece of it in each.
    """
    pieces: list[Shard] = []
    for start in range(0, len(manifest.entries), shard_images):
        members = []
        first = start
        entries = manifest.entries[start : start + shard_images]
        for name, group in groupby(entries, key=lambda entry: entry.identity):
            piece = tuple(group)
            members.append(Identity(name, first, piece))
            first += len(piece)
        pieces.append(Shard(len(pieces), tuple(members)))
    return tuple(pieces)


def _images(identities: Sequence[Identity]) -> int:
    return sum(len(identity.entries) for identity in identities)

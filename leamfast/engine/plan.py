"""A run as pieces of work, of which one kind are shards of identities, in manifest order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import Protocol, Self

from leamfast.datasets.entry import Entry
from leamfast.datasets.manifest import Manifest

__all__ = ["Identity", "Piece", "Shard", "Split", "boundaries", "plan_pieces", "plan_shards"]


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
class Split:
    """An identity that lies in several shards, as each of these knows it.

    Its slices hold consecutive images each, and rows but no person; the closing shard that follows them holds
    no row, but the person.

    Attributes:
        name: of the identity.
        first: position in the manifest of its first image.
        start: number of the shard of its first slice; the others follow it.
        slices: how many there are.
    """

    name: str
    first: int
    start: int
    slices: int

    @property
    def closing(self) -> int:
        """Number of the shard that closes it."""
        return self.start + self.slices

    @property
    def shards(self) -> range:
        """Numbers of its slices and of the shard that closes it."""
        return range(self.start, self.closing + 1)


@dataclass(frozen=True)
class Shard:
    """Identities that are computed together and stored as one part.

    Attributes:
        number: its place in the plan.
        identities: whole ones; a part of one in a slice; none in a shard that closes one.
        split: the identity of which this is a slice, or which it closes.
        left_out: position in the manifest -> why that image must not be touched: workers died of it.
        trial: whether it is computed only to see whether that goes well.
    """

    number: int
    identities: tuple[Identity, ...]
    split: Split | None = None
    left_out: Mapping[int, str] = field(default_factory=dict)
    trial: bool = False

    @property
    def closes(self) -> bool:
        """Whether it brings the person whose images lie in the slices before it."""
        return self.split is not None and self.number == self.split.closing

    @property
    def persons(self) -> int:
        """How many people its part holds."""
        return len(self.identities) if self.split is None else int(self.closes)

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

    @property
    def images_left(self) -> tuple[int, ...]:
        """Positions in the manifest of the images that are not left out."""
        return tuple(
            position
            for identity in self.identities
            for position in range(identity.first, identity.first + len(identity.entries))
            if position not in self.left_out
        )

    def only(self, positions: Sequence[int]) -> Self:
        """A trial of these images."""
        wanted = set(positions)
        others = {position: "not on trial" for position in self.images_left if position not in wanted}
        return replace(self, left_out={**self.left_out, **others}, trial=True)

    def without(self, culprits: Mapping[int, str]) -> Self:
        """The shard without these images, position -> why."""
        return replace(self, left_out={**self.left_out, **culprits})


def plan_shards(manifest: Manifest, shard_images: int, split_images: int | None = None) -> tuple[Shard, ...]:
    """Cut a manifest into shards.

    A shard is closed by the identity with which it reaches `shard_images`. An identity of more than
    `split_images` images is cut into slices of as equal a size as can be. The boundaries follow from the
    manifest and these numbers alone, never from who computes or how fast.

    Args:
        manifest: what is cut.
        shard_images: images of a shard, at least; of a slice, at most.
        split_images: images of an identity that stays whole, at most (default: every one does).
    """
    shards: list[Shard] = []
    members: list[Identity] = []
    first = 0

    def end() -> None:
        if members:
            shards.append(Shard(len(shards), tuple(members)))
            members.clear()

    for name, group in groupby(manifest.entries, key=lambda entry: entry.identity):
        identity = Identity(name, first, tuple(group))
        first += len(identity.entries)
        if split_images is not None and len(identity.entries) > split_images:
            end()
            shards += _slices(identity, len(shards), min(shard_images, split_images))
            continue
        members.append(identity)
        if _images(members) >= shard_images:
            end()
    end()
    return tuple(shards)


def boundaries(plan: Sequence[Shard]) -> str:
    """Where shards begin and end, and which of them are slices, as text."""
    kinds = ["" if shard.split is None else "c" if shard.closes else "s" for shard in plan]
    return ",".join(f"{shard.images}{kind}" for shard, kind in zip(plan, kinds, strict=True))


def _slices(identity: Identity, start: int, most: int) -> list[Shard]:
    """An identity as slices of at most `most` images, and the shard that closes it."""
    images = len(identity.entries)
    split = Split(identity.name, identity.first, start, -(-images // most))
    edges = [images * n // split.slices for n in range(split.slices + 1)]
    shards = [
        Shard(start + n, (Identity(identity.name, identity.first + a, identity.entries[a:b]),), split)
        for n, (a, b) in enumerate(pairwise(edges))
    ]
    return [*shards, Shard(split.closing, (), split)]


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

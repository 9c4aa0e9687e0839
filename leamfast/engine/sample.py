"""A few images from all over a data set, by which a run's time and size are measured."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from leamfast.engine.plan import Identity, Shard

__all__ = ["PIECES", "sample_pieces"]

PIECES = 3
SAMPLE = 64
"""Images of all pieces, at most, where a batch is no larger than a piece."""


def sample_pieces(plan: Sequence[Shard], batch_size: int) -> tuple[Shard, ...]:
    """Up to `PIECES` small shards that begin evenly spaced over the images of a plan.

    Each has whole identities until it fills a batch or the next one begins, so that large identities are met
    as often as in the run. One that would be too large is cut.
    """
    people = [identity for shard in plan for identity in shard.identities]
    total = sum(len(person.entries) for person in people)
    limit = max(SAMPLE // PIECES, batch_size)
    firsts = [person.first for person in people]
    pieces: list[Shard] = []
    number = 0  # of the next identity that no piece has yet
    for k in range(PIECES):
        number = max(number, bisect_right(firsts, total * k // PIECES) - 1)
        end = total * (k + 1) // PIECES
        members: list[Identity] = []
        images = 0
        while number < len(people) and images < batch_size and (not members or firsts[number] < end):
            person = people[number]
            members.append(replace(person, entries=person.entries[: limit - images]))
            images += len(members[-1].entries)
            number += 1
        if members:
            pieces.append(Shard(len(pieces), tuple(members)))
    return tuple(pieces)

"""What a slice of a split identity has to know of the identity's other slices."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from leamfast.engine.plan import Shard, Split
from leamfast.store.references import References, ReferenceSource

__all__ = ["SplitReferences", "splits"]


class SplitReferences:
    """References of split identities; those of the last one asked for stay in memory.

    Args:
        sources: number of an identity's first slice -> where its references come from.
    """

    def __init__(self, sources: Mapping[int, ReferenceSource]) -> None:
        self.sources = dict(sources)
        self._last: tuple[int, References] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"sources": self.sources, "_last": None}  # what a process has read stays there

    def only(self, starts: Collection[int]) -> "SplitReferences":
        """Those of some identities, by the number of their first slice."""
        return SplitReferences({start: source for start, source in self.sources.items() if start in starts})

    def of(self, shard: Shard) -> References | None:
        """References of the identity of which a shard is a slice; None for a shard of whole identities.

        Raises:
            PartError: they cannot be read.
            ValueError: nobody said where they come from.
        """
        if shard.split is None:
            return None
        start, last = shard.split.start, self._last
        if last is None or last[0] != start:
            if start not in self.sources:
                raise ValueError(
                    f"{shard.title} is a slice of {shard.split.name}, whose references are missing"
                )
            self._last = None  # two large identities at the same time would be one too many
            self._last = last = start, self.sources[start]()
        return last[1]

    def check(self, shard: Shard, positions: Sequence[int]) -> References | None:
        """References as `of`, where the slice's usable images are those that they were made of.

        Args:
            shard: the shard.
            positions: in the manifest, of its usable images.

        Raises:
            ValueError: they are others, for example because a file was changed meanwhile.
        """
        found = self.of(shard)
        if found is None:
            return None
        (identity,) = shard.identities
        edges = [identity.first, identity.first + len(identity.entries)]
        embedded = found.positions[slice(*np.searchsorted(found.positions, edges))]
        mine = [position for position in embedded.tolist() if position not in shard.left_out]
        if mine != list(positions):
            raise ValueError(
                f"{len(positions)} images of {identity.name} can be used here where its references were made "
                f"of {len(mine)}, or of others: a file was changed or could not be read; remove the folder "
                "references of the run and go on with --resume"
            )
        return found


def splits(plan: Sequence[Shard]) -> list[Split]:
    """The split identities of a plan, in order."""
    return [shard.split for shard in plan if shard.split is not None and shard.closes]

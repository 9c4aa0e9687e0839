"""Pairs of maps cut into tiles, each of which is computed and stored at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leamfast.engine.pair_lists import PairList

__all__ = ["TILE", "PairTile", "cut"]

TILE = 4096
"""Pairs of a tile: what a killed run loses at most, and what is held in memory."""


@dataclass(frozen=True, eq=False)
class PairTile:
    """Some of the pairs of one kind of one map.

    Attributes:
        number: place in the plan.
        model, name: whose maps; `fused` is a name.
        other_model: of kind cross, whose maps are the second ones.
        pairs: which; its `excluded` only with the first tile of its kind.
        index, count: place among the tiles of its kind, and their number.
    """

    number: int
    model: str
    name: str
    other_model: str
    pairs: PairList
    index: int
    count: int

    @property
    def amount(self) -> int:
        """What progress counts: pairs."""
        return len(self.pairs)

    @property
    def title(self) -> str:
        """What the reader knows it by."""
        return f"tile {self.index} of pairs {self.pairs.kind} of {self.name} of {self.model}"


def cut(start: int, model: str, name: str, pairs: PairList, other_model: str = "") -> Iterator[PairTile]:
    """Tiles of a list, numbered from `start`; one empty tile where there are no pairs."""
    count = max(1, -(-len(pairs) // TILE))
    borders = np.linspace(0, len(pairs), count + 1).astype(int)
    for index, (first, last) in enumerate(zip(borders[:-1], borders[1:], strict=True)):
        mine = PairList(
            pairs.kind,
            pairs.first[first:last],
            pairs.second[first:last],
            pairs.turn[first:last],
            pairs.excluded if index == 0 else {},
        )
        yield PairTile(start + index, model, name, other_model, mine, index, count)

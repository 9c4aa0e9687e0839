"""Pairs of different maps of a layer, drawn evenly from all layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Pairs", "draw_pairs"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """What is compared.

    Attributes:
        name: of the maps, for people.
        maps: (N, h, w).
        listed: rows of maps, (K, 2), int64, no pair twice.
    """

    name: str
    maps: Tensor
    listed: Tensor

    def __len__(self) -> int:
        return len(self.listed)

    def first(self, number: int) -> "Pairs":
        """The first of the pairs."""
        return Pairs(self.name, self.maps, self.listed[:number])


def draw_pairs(name: str, groups: Sequence[Tensor], number: int, seed: int = 0) -> Pairs:
    """Draw about as many pairs from every group.

    Args:
        name: of the maps.
        groups: maps of each layer, (N, h, w).
        number: of pairs; fewer where there are not so many.
        seed: the same one draws the same pairs.

    Raises:
        ValueError: no group has two maps.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn, start = [], 0
    for place, group in enumerate(groups):
        wanted = number * (place + 1) // len(groups) - number * place // len(groups)
        possible = torch.triu_indices(len(group), len(group), 1).T
        chosen = torch.randperm(len(possible), generator=generator)[:wanted]
        drawn.append(start + possible[chosen])
        start += len(group)
    listed = torch.cat(drawn)
    if not len(listed):
        raise ValueError(f"groups must hold two maps of a layer to be compared, got none of {name}")
    listed = listed[torch.randperm(len(listed), generator=generator)]
    return Pairs(name, torch.cat(list(groups)), listed)

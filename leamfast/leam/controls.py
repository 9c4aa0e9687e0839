"""Pixels that stand in for a map's support: drawn at random, near the middle, or the support itself moved.

A draw depends on what it is for, on the seed and on the row, never on who computes it or when.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from leamfast.leam.registration import Centres
from leamfast_kernels import upsample

__all__ = [
    "centre_ranks",
    "draw",
    "full_ranks",
    "moved",
    "moved_onto",
    "random_moves",
    "random_pixels",
    "random_ranks",
]

RANDOM, SHIFTED, ON_FACE = 0, 100, 101
"""Of draws: what they are for; blocks of B pixels a side have RANDOM + B."""


def draw(purpose: int, seed: int, row: int) -> np.random.Generator:
    """The random numbers of one row."""
    return np.random.default_rng([purpose, seed, row])


def random_ranks(rows: Sequence[int], seeds: Sequence[int], size: int, block: int = 1) -> Tensor:
    """A random order of the pixels of a crop, block by block.

    The blocks come in random order, and the pixels of a block one after the other: of whatever number of
    first pixels all but one block are whole.

    Args:
        rows: n row numbers of the run.
        seeds: of the draws.
        size: side of the crop in pixels.
        block: side of the blocks; those at the right and lower edge may be smaller.

    Returns:
        Rank of each pixel from 0, (n, seeds, size, size) int32, on the CPU.
    """
    across = -(-size // block)
    cell = (np.arange(size) // block)[:, None] * across + np.arange(size) // block
    order = np.argsort(cell.ravel(), kind="stable")
    pixels = np.bincount(cell.ravel())
    inside = np.empty(size * size, np.int32)  # place of a pixel in its block
    inside[order] = np.arange(size * size) - np.repeat(np.cumsum(pixels) - pixels, pixels)
    ranks = np.empty((len(rows), len(seeds), size * size), np.int32)
    for i, row in enumerate(rows):
        for j, seed in enumerate(seeds):
            shuffled = draw(RANDOM + block, seed, row).permutation(across * across)
            first = np.empty_like(shuffled)  # how many pixels come before each block
            first[shuffled] = np.cumsum(pixels[shuffled]) - pixels[shuffled]
            ranks[i, j] = first[cell.ravel()] + inside
    return torch.from_numpy(ranks).unflatten(2, (size, size))


def centre_ranks(size: int) -> Tensor:
    """The pixels of a crop by their distance from its middle, ties to the lower index, (size, size) int32."""
    offsets = np.arange(size) - (size - 1) / 2
    distance = offsets[:, None] ** 2 + offsets**2
    ranks = np.empty(size * size, np.int32)
    ranks[np.argsort(distance.ravel(), kind="stable")] = np.arange(size * size)
    return torch.from_numpy(ranks).view(size, size)


def random_moves(rows: Sequence[int], seed: int, size: int) -> np.ndarray:
    """How far to move the supports of rows down and across, never not at all, (n, 2) int64."""
    return np.stack([draw(SHIFTED, seed, row).integers(1, size, 2) for row in rows])


def random_pixels(rows: Sequence[int], seed: int, inside: np.ndarray) -> np.ndarray:
    """A pixel of each row's region, y and x, (n, 2) int64; -1 where the region is empty.

    Args:
        rows: n row numbers of the run.
        seed: of the draw.
        inside: the regions, (n, size, size) bool.
    """
    found = np.full((len(rows), 2), -1, np.int64)
    for i, (row, region) in enumerate(zip(rows, inside, strict=True)):
        places = np.flatnonzero(region)
        if len(places):
            place = places[draw(ON_FACE, seed, row).integers(len(places))]
            found[i] = np.divmod(place, region.shape[1])
    return found


def moved(masks: Tensor, moves: Tensor) -> Tensor:
    """Masks moved down and across; what leaves the picture comes in at the other side.

    Args:
        masks: (n, M, S, S), bool.
        moves: by how many pixels, one move a row, (n, 2), or one a mask, (n, M, 2); int64.
    """
    if moves.dim() == 2 and not masks.is_cuda:  # a memory copy where it can be
        rolled = [torch.roll(m, (int(y), int(x)), (1, 2)) for m, (y, x) in zip(masks, moves, strict=True)]
        return torch.stack(rolled) if rolled else masks.clone()
    moves = moves[:, None] if moves.dim() == 2 else moves
    size = masks.shape[-1]
    pixels = torch.arange(size, device=masks.device)
    y = (pixels - moves[..., 0, None]) % size
    x = (pixels - moves[..., 1, None]) % size
    places = (y[..., :, None] * size + x[..., None, :]).flatten(2)
    return masks.flatten(2).gather(2, places.expand(*masks.shape[:2], -1)).view_as(masks)


def moved_onto(masks: Tensor, goals: Tensor) -> Tensor:
    """Masks moved so that the mean of their pixels comes to lie on a pixel; empty ones stay empty.

    Args:
        masks: (n, M, S, S), bool.
        goals: y and x of one pixel a row, (n, 2), int64.
    """
    down, across = masks.sum(dim=3), masks.sum(dim=2)
    pixels = torch.arange(masks.shape[-1], device=masks.device, dtype=torch.float32)
    count = down.sum(dim=2).clamp_min(1)
    middle = torch.stack([(line * pixels).sum(dim=2) / count for line in (down, across)], dim=2)
    return moved(masks, goals[:, None] - middle.round().long())


def full_ranks(maps: Tensor, random: Tensor, size: int, centres: Centres | None) -> Tensor:
    """The pixels of a crop from the largest of a map to the smallest; those where it is zero at random.

    Args:
        maps: (n, h, w); NaN where there is none.
        random: order of the pixels that decides where a map is zero, ranks (n, size, size).
        size: side of the crop in pixels.
        centres: where the cells lie.

    Returns:
        Rank of each pixel from 0, (n, size, size) int32.
    """
    values = upsample(maps, size, centres).double()
    last = -1.0 - random.to(values) / (size * size)
    values = torch.where(values > 0, values, last).flatten(1)
    order = torch.sort(values, dim=1, descending=True, stable=True).indices
    places = torch.arange(size * size, dtype=torch.int32, device=maps.device).expand_as(order)
    ranks = torch.empty_like(places, memory_format=torch.contiguous_format)
    return ranks.scatter_(1, order, places).view(-1, size, size)

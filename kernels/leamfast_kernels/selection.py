"""The largest pixels of an upsampled map, chosen in torch; for `support`, `region_share` and `occlude`.

Every pixel gets an int64 key: the bits of its float32 value above, H * W - 1 - (flat index) below. Floats
above zero order as their bits do, so keys order pixels by value and, among equal values, by lower index
first. All keys of a map differ: the k largest are one definite set, which an unsorted partial selection finds
and which a threshold on the key describes. A pixel is positive exactly where its key is at least `POSITIVE`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

POSITIVE = 1 << 32
NOTHING = torch.iinfo(torch.int64).max
HELD = 1 << 16  # pixels of an upsampled map that a program on a GPU can hold


def check_percents(percents: Sequence[float]) -> list[float]:
    """Percents as a list of floats; raises unless there is at least one and each lies in (0, 100]."""
    try:
        values = [float(percent) for percent in percents]
    except (TypeError, ValueError) as exc:
        raise TypeError(f"percents must be a sequence of numbers in (0, 100], got {percents!r}") from exc
    if not values or not all(math.isfinite(value) and 0 < value <= 100 for value in values):
        raise ValueError(f"percents must hold at least one number, each in (0, 100], got {percents!r}")
    return values


def pixel_count(percent: float, height: int, width: int) -> int:
    """round(p / 100 * H * W) with Python's `round`: an exact half goes to the even number."""
    return round(percent / 100 * height * width)


def finite(maps: Tensor) -> Tensor:
    """Which maps (N, ...) hold finite numbers only, as bool (N,)."""
    return torch.isfinite(maps).flatten(1).all(dim=1)


def pixel_keys(values: Tensor) -> Tensor:
    """Keys (N, H * W) int64 of upsampled maps (N, H, W) float32."""
    bits = values.flatten(1).view(torch.int32).to(torch.int64)
    pixels = bits.shape[1]
    rank = torch.arange(pixels - 1, -1, -1, dtype=torch.int64, device=values.device)
    return bits.bitwise_left_shift_(32).add_(rank)


def key_index(keys: Tensor, pixels: int) -> Tensor:
    """Flat pixel index behind each key of maps with H * W = `pixels`."""
    return (keys & (POSITIVE - 1)).neg_().add_(pixels - 1)


def largest(keys: Tensor, counts: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """For each distinct count k from the largest down: k and the k largest keys of each row, in no order."""
    for count in sorted(set(counts), reverse=True):
        if count < keys.shape[1]:
            # The next smaller set lies within this one.
            keys = torch.topk(keys, count, dim=1, sorted=False).values
        yield count, keys


def thresholds(keys: Tensor, counts: Sequence[int]) -> Tensor:
    """Smallest key of the support for each count, (N, len(counts)); `NOTHING` for an empty support."""
    lowest = {0: keys.new_full((keys.shape[0],), NOTHING)}
    for count, chosen in largest(keys, [count for count in counts if count]):
        lowest[count] = chosen.amin(dim=1).clamp_min(POSITIVE)
    return torch.stack([lowest[count] for count in counts], dim=1)

"""The largest pixels of an upsampled map, without a kernel; for `support`, `region_share` and `occlude`.

Every pixel gets an int64 key: the bits of its float32 value above, H * W - 1 - (flat index) below. Floats
above zero order as their bits do, so keys order pixels by value and, among equal values, by lower index
first. All keys of a map differ: the k largest are one definite set, which a partial selection finds and which
a threshold on the key describes. A pixel is positive exactly where its key is at least `POSITIVE`.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from leamfast_kernels.tuning import ALONE

POSITIVE = 1 << 32
NOTHING = torch.iinfo(torch.int64).max
HELD = 160 * 160  # pixels of an upsampled map that a program on a GPU holds in registers


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
    bits = values.flatten(1).view(torch.int32)
    pixels = bits.shape[1]
    rank = torch.arange(pixels - 1, -1, -1, dtype=torch.int32, device=values.device)
    halves = (rank.expand_as(bits), bits) if sys.byteorder == "little" else (bits, rank.expand_as(bits))
    return torch.stack(halves, dim=2).view(torch.int64).squeeze(2)


def key_index(keys: Tensor, pixels: int) -> Tensor:
    """Flat pixel index behind each key of maps with H * W = `pixels`."""
    return (keys & (POSITIVE - 1)).neg_().add_(pixels - 1)


def largest(keys: Tensor, counts: Sequence[int]) -> Tensor:
    """The max(counts) largest keys of each row, of which the last k are the k largest for each k of `counts`.

    On a CPU by introselect, which rearranges `keys` in place: NumPy's is vectorised, and finds all places in
    one go.
    """
    pixels, most = keys.shape[1], max(counts)
    if keys.device.type != "cpu":
        return torch.topk(keys, most, dim=1).values.flip(1)
    # With the place of the maximum besides, NumPy's takes half the time that it takes for a single place.
    places = sorted({pixels - count for count in counts} | {pixels - 1})
    threads = max(1, min(torch.get_num_threads(), keys.shape[0], keys.numel() // ALONE))
    own, *others = np.array_split(keys.numpy(), threads)
    begun = [_pool(torch.get_num_threads()).submit(part.partition, places, axis=1) for part in others]
    own.partition(places, axis=1)
    for part in begun:
        part.result()
    return keys[:, pixels - most :]


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="leamfast_kernels")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has no threads but its own


def nested(values: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The pixels in nested supports of `counts` pixels, which ascend, of maps (N, H * W) float32.

    Returns:
        index: flat index of the counts[-1] largest pixels, (N, counts[-1]) int64, in no order.
        number: in how many of the supports each of them is, int64, same shape; 0 where it is not positive.
    """
    keys = largest(pixel_keys(values), counts)
    lengths = torch.tensor([0, *counts]).diff().flip(0)
    number = torch.repeat_interleave(torch.arange(1, len(counts) + 1), lengths).to(values.device)
    return key_index(keys, values.shape[1]), number * (keys >= POSITIVE)


def thresholds(keys: Tensor, counts: Sequence[int]) -> Tensor:
    """Smallest key of the support for each count, (N, len(counts)); `NOTHING` for an empty support."""
    lowest = keys.new_full((keys.shape[0], len(counts)), NOTHING)
    wanted = [count for count in counts if count]
    if wanted:
        chosen = largest(keys, wanted).clamp_min_(POSITIVE)
        for column, count in enumerate(counts):
            if count:
                lowest[:, column] = chosen[:, -count]
    return lowest

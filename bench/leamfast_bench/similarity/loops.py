"""Exact distances as a user of POT would write them: a loop over `ot.emd2`, and the same loop in threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from leamfast_bench.similarity.pairs import Pairs

__all__ = ["LOOP", "full_grid", "pooled", "supports"]

LOOP = "loop over ot.emd2"
ITERATIONS = 10_000_000  # of the network simplex at most: none of these problems needs so many

Solve = Callable[[int], float]


def full_grid(pairs: Pairs) -> Solve:
    """Distance of a pair by the full matrix of costs between all cells, which is made once."""
    import ot

    height, width = pairs.maps.shape[1:]
    centres = np.argwhere(np.ones((height, width))) + 0.5
    costs = ot.dist(centres / (height, width), metric="euclidean")
    masses = _shares(pairs.maps)
    listed = pairs.listed.tolist()

    def solve(which: int) -> float:
        i, j = listed[which]
        return float(ot.emd2(masses[i], masses[j], costs, numItermax=ITERATIONS))

    return solve


def supports(pairs: Pairs) -> Solve:
    """Distance of a pair by the costs between the pixels of its supports, which are those above zero."""
    import ot

    side = max(pairs.maps.shape[1:])
    masses = _shares(pairs.maps).reshape(pairs.maps.shape)
    points: Sequence[np.ndarray] = [np.argwhere(mass).astype(float) for mass in masses]  # in pixels
    weights: Sequence[np.ndarray] = [mass[mass > 0] for mass in masses]
    listed = pairs.listed.tolist()

    def solve(which: int) -> float:
        i, j = listed[which]
        costs = ot.dist(points[i], points[j], metric="euclidean")
        return float(ot.emd2(weights[i], weights[j], costs, numItermax=ITERATIONS)) / side

    return solve


def pooled(solve: Solve, number: int, threads: int) -> Tensor:
    """All distances by so many threads: `ot.emd2` releases Python's lock."""
    if threads == 1:
        return torch.tensor([solve(which) for which in range(number)], dtype=torch.float64)
    with ThreadPoolExecutor(threads) as pool:
        return torch.tensor(list(pool.map(solve, range(number))), dtype=torch.float64)


def _shares(maps: Tensor) -> np.ndarray:
    masses = maps.double().flatten(1)
    return (masses / masses.sum(dim=1, keepdim=True)).numpy()

"""Exact distances of many pairs, on all threads: the solver releases Python's lock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from leamfast_kernels.emd.ground import Cells
from leamfast_kernels.emd.reduction import Shares, differences
from leamfast_kernels.emd.simplex import solvers, transport
from leamfast_kernels.emd.together import LONGEST, fits, transport_together

__all__ = ["exact"]

TOGETHER = 8  # small pairs that a thread solves at a time: their arrays stay in a cache of a core


def exact(p: Shares, q: Shares, pairs: Cells, size: tuple[int, int], ground: str) -> NDArray[np.float64]:
    """Value, lower and upper bound, (3, K), in sides of the image; the same bits for any number of threads.

    Args:
        p: shares of N maps.
        q: shares of M maps.
        pairs: rows of p and of q, (K, 2), of maps that have shares.
        size: (h, w) of the grid.
        ground: "euclidean" or "l1".
    """
    found = np.zeros((len(pairs), 3))
    threads = min(torch.get_num_threads(), len(pairs))
    if not threads:
        return found.T
    solvers()  # not in several threads at once
    parts = _parts(p, q, pairs, threads)
    places = count()  # the next part, for whichever thread asks
    failed = False

    def work() -> None:
        nonlocal failed
        while not failed and (place := next(places)) < len(parts):
            try:
                part = parts[place]
                found[part] = _distances(p, q, pairs[part], size, ground)
            except BaseException:
                failed = True  # the others stop after their part
                raise

    if threads == 1:
        work()
        return found.T
    with ThreadPoolExecutor(threads, thread_name_prefix="leamfast_emd") as pool:
        for worker in [pool.submit(work) for _ in range(threads)]:
            worker.result()
    return found.T


def _parts(p: Shares, q: Shares, pairs: Cells, threads: int) -> list[Cells]:
    """Places of the pairs, of small ones several at a time; those with the most arcs first.

    No thread is then left alone with a large pair.
    """
    of_p, of_q = (np.array([len(cells) for cells in maps.cells]) for maps in (p, q))
    of_p, of_q = of_p[pairs[:, 0]], of_q[pairs[:, 1]]
    order = np.argsort(-(of_p * of_q), kind="stable")
    small = (np.maximum(of_p, of_q) <= LONGEST)[order]
    several = max(1, min(TOGETHER, -(-int(small.sum()) // threads)))
    parts = [order[place : place + 1] for place in np.flatnonzero(~small)]
    order = order[small]
    return parts + [order[start : start + several] for start in range(0, len(order), several)]


def _distances(p: Shares, q: Shares, pairs: Cells, size: tuple[int, int], ground: str) -> NDArray[np.float64]:
    """Value, lower and upper bound of some pairs, (K, 3)."""
    excesses = differences(p, q, pairs)
    found = np.full((len(pairs), 3), np.nan)
    fit = [which for which, excess in enumerate(excesses) if fits(excess)]
    if fit:
        found[fit] = transport_together([excesses[which] for which in fit], size, ground)
    for which in np.flatnonzero(np.isnan(found[:, 0])).tolist():
        found[which] = transport(excesses[which], size, ground) if excesses[which].mass else 0
    return found * np.array([excess.mass / max(size) for excess in excesses])[:, None]

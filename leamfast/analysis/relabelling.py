"""A test of groups that knows of persons: which group an identity is in is dealt anew, to whole identities.

Reference: Fisher's permutation test, with identities for the units.
"""

import numpy as np

__all__ = ["DEALS", "relabelling_p"]

DEALS = 9999
"""The smallest p-value is 1 / 10000."""

CELLS = 2**22
"""Identities times deals whose groups are there at the same time: 32 MB as numbers of eight bytes."""

ROUNDING = 1e-12
"""Equal differences may differ by so much, relative to the means, when summed in another order."""


def relabelling_p(
    total: np.ndarray, count: np.ndarray, label: np.ndarray, groups: int, seed: int = 0
) -> np.ndarray:
    """Chance of so large a difference between a group and the rest, of either sign, if groups meant nothing.

    With N deals of which k have at least this difference of means over pairs, (1 + k) / (1 + N). A deal that
    leaves a group or its rest without a pair counts as one of them.

    Numbers of pairs are dealt with their identities. So the test is exact where they have nothing to do with
    the groups either; where one group has far more pairs an identity, its p is only near.

    Args:
        total: sums of the values of each identity, (P, k).
        count: pairs of each identity, (P, k).
        label: group of each identity, from 0, (P,).
        groups: how many there are.
        seed: of the deals.

    Returns:
        p (groups, k); NaN where a group, or its rest, has no pair.
    """
    sums = np.hstack([total, count]).astype(np.float64)
    whole = sums.sum(axis=0)
    columns = total.shape[1]

    def difference(inside: np.ndarray) -> np.ndarray:
        mine = inside.astype(np.float64) @ sums
        rest = whole - mine
        with np.errstate(invalid="ignore", divide="ignore"):
            return mine[..., :columns] / mine[..., columns:] - rest[..., :columns] / rest[..., columns:]

    numbers = np.arange(groups)
    observed = difference(label[None] == numbers[:, None])
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.abs(total).sum(axis=0) / whole[columns:]
    least = np.abs(observed) - ROUNDING * scale
    reached = np.zeros(observed.shape, np.int64)
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // max(1, len(label)))
    for start in range(0, DEALS, step):
        deals = min(step, DEALS - start)
        dealt = rng.permuted(np.broadcast_to(label.astype(np.int16), (deals, len(label))), axis=1)
        for group in numbers:
            reached[group] += (~(np.abs(difference(dealt == group)) < least[group])).sum(axis=0)
    return np.where(np.isfinite(observed), (1 + reached) / (1 + DEALS), np.nan)

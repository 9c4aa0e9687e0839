"""A paired test that knows of persons: the differences of a whole identity change their sign together.

If two maps cost the same, an identity's summed difference could as well have the other sign. Images and
references of one person go together, so that flipping single pairs would make p-values far too small.

Reference: Fisher, The Design of Experiments, 1935, section 21, with identities for the pots.
"""

import numpy as np

__all__ = ["EXACT", "FLIPS", "sign_flip_p"]

EXACT = 12
"""Identities up to which all 2^P flips are counted; with more they are drawn."""

FLIPS = 9999
"""Drawn flips: the smallest p-value is 1 / 10000."""

PEOPLE = 512
"""Identities whose signs are numbers of eight bytes at the same time: 41 MB."""

COLUMNS = 1024
"""Columns tested together: 82 MB of statistics."""

ROUNDING = 1e-12
"""Of the sum of all magnitudes: equal statistics differ by so much when summed in another order."""


def sign_flip_p(sums: np.ndarray, there: np.ndarray, seed: int = 0) -> np.ndarray:
    """Chance of so large a sum of differences, of either sign, if each identity's could have either sign.

    Up to `EXACT` identities it is the part of all flips whose sum is at least as large; beyond, with N drawn
    flips of which k are, (1 + k) / (1 + N). All columns meet the same drawn flips.

    Args:
        sums: sum of the differences of each identity, (P, k).
        there: which identities have any, (P, k).
        seed: of the flips.

    Returns:
        p (k,); NaN where fewer than two identities have differences.
    """
    p = np.full(sums.shape[1], np.nan)
    sums = np.where(there, sums, 0.0)
    people = there.sum(axis=0)
    few: dict[bytes, list[int]] = {}
    for column in np.flatnonzero((people > 1) & (people <= EXACT)):
        few.setdefault(np.packbits(there[:, column]).tobytes(), []).append(int(column))
    for columns in few.values():
        who = there[:, columns[0]]
        for start in range(0, len(columns), COLUMNS):
            part = columns[start : start + COLUMNS]
            p[part] = _exact(sums[who][:, part])
    many = np.flatnonzero(people > EXACT)
    for start in range(0, len(many), COLUMNS):
        drawn = many[start : start + COLUMNS]
        p[drawn] = _drawn(sums[:, drawn], seed)
    return p


def _least(sums: np.ndarray) -> np.ndarray:
    """What a flip must reach to count, (k,)."""
    return np.abs(sums.sum(axis=0)) - ROUNDING * np.abs(sums).sum(axis=0)


def _exact(sums: np.ndarray) -> np.ndarray:
    # A flip and its opposite have the same magnitude: the last identity keeps its sign.
    flips = 1.0 - 2.0 * ((np.arange(2 ** (len(sums) - 1))[:, None] >> np.arange(len(sums))) & 1)
    return (np.abs(flips @ sums) >= _least(sums)).mean(axis=0)


def _drawn(sums: np.ndarray, seed: int) -> np.ndarray:
    statistic = np.zeros((FLIPS, sums.shape[1]))
    for block, start in enumerate(range(0, len(sums), PEOPLE)):
        mine = sums[start : start + PEOPLE]
        bits = np.random.default_rng([seed, block]).integers(0, 2, (FLIPS, len(mine)), np.int8)
        statistic += (1.0 - 2.0 * bits) @ mine
    reached = (np.abs(statistic) >= _least(sums)).sum(axis=0)
    return (1 + reached) / (1 + FLIPS)

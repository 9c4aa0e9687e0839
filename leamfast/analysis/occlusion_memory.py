"""How many maps are summed up together, so that memory stays bounded."""

from collections.abc import Iterator, Sequence

from leamfast.analysis.fills import PSNR_LEVELS, SSIM_LEVELS
from leamfast.analysis.strata import Strata
from leamfast.store.occlusion import OcclusionAxes

__all__ = ["map_bytes", "map_groups"]

SUM_BYTES = 2**30
"""Of the sums of all identities at the same time; what needs more is made a few maps at a time."""

SUMS = 4
"""For each column of drops: see `PairedSums`, and `GroupSums` for each identity in a group."""

SUMS_OF_FILLS = 2
"""For each column of `FillSums`."""

PARTS = 12
"""For each column while groups are compared, one after the other: all, the group, the rest and the
specificity, sums and counts of each, and four means."""


def map_groups(
    axes: OcclusionAxes, people: int, strata: Sequence[Strata] = (), *, fills: bool = False
) -> Iterator[slice]:
    """Which maps to sum up together, so that their sums take at most `SUM_BYTES`.

    One map is the least, whatever it takes, as fills are compared from percent to percent: memory is bounded
    by the larger of `SUM_BYTES` and `map_bytes`.

    Args:
        axes: of all maps.
        people: how many identities.
        strata: the groups that drops are summed up by.
        fills: whether fills are compared.
    """
    step = max(1, SUM_BYTES // map_bytes(axes, people, strata, fills=fills))
    for start in range(0, len(axes.maps), step):
        yield slice(start, min(start + step, len(axes.maps)))


def map_bytes(axes: OcclusionAxes, people: int, strata: Sequence[Strata] = (), *, fills: bool = False) -> int:
    """What the sums of one map take at most, in bytes; as `map_groups`.

    It grows with the identities alone, not with the images, unless images of one identity are in several
    groups: 100,000 identities with five percents, 16 controls and one column take 0.3 GB.
    """
    columns = len(axes.percents) * len(axes.fills)
    numbers = people * SUMS * len(axes.controls) * columns
    if axes.steps:
        numbers += people * 2 * len(axes.controls) * len(axes.fills) * (SUMS + len(axes.steps))
    if fills:
        levels = len(axes.percents) + len(PSNR_LEVELS) + len(SSIM_LEVELS)
        numbers += people * SUMS_OF_FILLS * levels * len(axes.fills)
    for one in strata:
        cells = people if one.whole else min(len(one.code), people * len(one.groups))
        numbers += cells * SUMS * columns
    if strata:
        numbers += people * PARTS * columns
    return 8 * numbers

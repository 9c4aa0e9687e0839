"""How much memory sums take, and how many maps are summed up together."""

from dataclasses import replace

import numpy as np
import pytest

from leamfast.analysis import occlusion_memory
from leamfast.analysis.curves import CurveSums
from leamfast.analysis.fills import FillSums
from leamfast.analysis.groups import GroupSums
from leamfast.analysis.occlusion_memory import PARTS, map_bytes, map_groups
from leamfast.analysis.occlusion_sums import DropSums
from leamfast.analysis.strata import Strata
from tests.analysis.occluded import axes_of

PERSON = np.repeat(np.arange(50), 4)
AXES = axes_of(("a",), (1.0, 5.0, 20.0), ("own", "random", "other-identity"), ("black", "blur"))
WHOLE = Strata("sex", ("f", "m"), PERSON % 2, True)
PARTED = Strata("pose", ("front", "side"), np.tile([0, 0, 1, 1], 50), False)


def held(thing):
    """Bytes of all arrays that sums hold by identity."""
    values = thing.values() if isinstance(thing, dict) else vars(thing).values()
    found = 0
    for value in values:
        if isinstance(value, np.ndarray):
            found += value.nbytes if value.dtype == np.float64 and value.ndim > 2 else 0
        elif isinstance(value, dict) or type(value).__name__ in ("PairedSums", "_Sums"):
            found += held(value)
    return found


@pytest.mark.parametrize("steps", [(), (0.0, 50.0, 100.0)])
@pytest.mark.parametrize("strata", [(), (WHOLE,), (WHOLE, PARTED)])
@pytest.mark.parametrize("fills", [False, True])
def test_the_estimate_is_what_sums_hold(steps, strata, fills):
    axes = replace(AXES, steps=steps)
    sums = [DropSums(axes, PERSON, 50), *(GroupSums(axes, one, PERSON) for one in strata)]
    sums += [FillSums(axes, PERSON, 50)] if fills else []
    sums += [CurveSums(axes, PERSON, 50)] if steps else []
    columns = len(axes.percents) * len(axes.fills)
    beside = 8 * 50 * columns * PARTS if strata else 0
    few = 8 * 1000  # means of what is seen, which do not grow with people
    assert 0 <= sum(map(held, sums)) - (map_bytes(axes, 50, strata, fills=fills) - beside) < few


def test_maps_are_summed_up_a_few_at_a_time(monkeypatch):
    axes = replace(AXES, maps=tuple("abcde"))
    one = map_bytes(axes, 50)
    monkeypatch.setattr(occlusion_memory, "SUM_BYTES", 2 * one)
    assert list(map_groups(axes, 50)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert len(list(map_groups(axes, 50, [WHOLE]))) == 5
    assert len(list(map_groups(axes, 50, fills=True))) == 5
    monkeypatch.setattr(occlusion_memory, "SUM_BYTES", 1)
    assert len(list(map_groups(axes, 50))) == 5  # one map is the least

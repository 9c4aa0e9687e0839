"""Where the time of a block goes, by the functions of the pass."""

import cProfile
import pstats
from collections.abc import Callable
from typing import Any

__all__ = ["STAGES", "shares_of_stages"]

MASKS, FILLING, EMBEDDING, CROPS, REST = "masks", "filling", "embedding", "crops", "rest"
STAGES = (MASKS, FILLING, EMBEDDING, CROPS, REST)
"""Masks of maps and of draws; images with pixels filled; models; photos read and cropped; and the rest."""

Place = tuple[str, str]
WHERE: dict[str, tuple[Place, ...]] = {
    MASKS: (("occlusion_supports.py", "of"), ("occlusion_supports.py", "drawn_masks")),
    FILLING: (("occlusion.py", "occluded_units"),),  # with the models in it, which are taken off
    EMBEDDING: (("program.py", "embed"),),
    CROPS: (("recrop.py", "crops"),),
}
"""Stage -> file and name of its functions; none of them calls another of the same stage."""


def shares_of_stages(call: Callable[[], object]) -> dict[str, float]:
    """Stage -> its share of the time of a call on a CPU.

    Raises:
        RuntimeError: a function of a stage was not called: it has another name now.
    """
    profile = cProfile.Profile()
    profile.runcall(call)
    stats: dict[tuple[str, int, str], Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    seconds = {stage: sum(_seconds(stats, place) for place in places) for stage, places in WHERE.items()}
    (filling,), (embedding,) = WHERE[FILLING], WHERE[EMBEDDING]
    seconds[FILLING] -= _seconds(stats, embedding, filling)
    found = {stage: value / total for stage, value in seconds.items()}
    return found | {REST: 1 - sum(found.values())}


def _seconds(stats: dict[tuple[str, int, str], Any], place: Place, caller: Place | None = None) -> float:
    """Seconds of a function and of all that it calls, where a caller is given of that one's calls alone."""
    found = [entry for key, entry in stats.items() if _is(key, place)]
    if not found:
        raise RuntimeError(f"{place[1]} of {place[0]} was not called: the stages of the pass have changed")
    if caller is None:
        return sum(entry[3] for entry in found)
    return sum(
        entry[3] for _, _, _, _, callers in found for key, entry in callers.items() if _is(key, caller)
    )


def _is(key: tuple[str, int, str], place: Place) -> bool:
    file, _, name = key
    return name == place[1] and file.replace("\\", "/").rpartition("/")[2] == place[0]

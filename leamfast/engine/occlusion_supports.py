"""The masks of a block of rows: supports of one source model's maps and of the controls that stand in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from leamfast.engine.occlusion_maps import Entries, OcclusionMaps
from leamfast.leam.controls import centre_ranks, moved, moved_onto, random_moves, random_pixels, random_ranks
from leamfast.leam.occlusion import Masks
from leamfast.store.occlusion import OWN
from leamfast_kernels import support

__all__ = ["Drawn", "Numbers", "Supports", "drawn_masks", "master_count", "pixel_counts"]

BLOCKS = {"random": 1, "random-block-2": 2, "random-block-4": 4, "random-block-8": 8}
"""Controls that are drawn, and the side of their blocks in pixels."""

CENTRE = "centre"
BY_ENTRY = (OWN, "shifted", "shifted-on-face", "other-identity")
"""What depends on the map itself; the other controls depend on its row alone."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """Which masks belong to a control.

    Attributes:
        numbers: in `Masks`, (E or n, P, Z): of each map, or of each row; Z is 1 where there is no draw.
        found: whether there is such a map, (E or n, Z).
    """

    numbers: Tensor
    found: Tensor


@dataclass(frozen=True)
class Drawn:
    """Masks that depend on no map.

    Attributes:
        masks: all of them.
        numbers: control -> (n, P, Z), Z seeds, or 1 for `centre`.
    """

    masks: Masks
    numbers: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Supports:
    """Masks that depend on maps of one source model.

    Attributes:
        entries: the maps that are occluded one by one.
        masks: all masks.
        by_entry: (map, control) -> numbers of each entry.
        by_row: (map, control) -> numbers of each row.
        sizes: map -> pixels of the own support of each entry, (E, P).
    """

    entries: Entries
    masks: Masks
    by_entry: dict[tuple[str, str], Numbers] = field(default_factory=dict)
    by_row: dict[tuple[str, str], Numbers] = field(default_factory=dict)
    sizes: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(
        maps: Mapping[str, OcclusionMaps],
        entries: Entries,
        rows: np.ndarray,
        nearest: np.ndarray,
        faces: np.ndarray | None,
        percents: Sequence[float],
        controls: Sequence[str],
        seeds: Sequence[int],
        size: int,
        device: torch.device,
    ) -> "Supports":
        """Masks of a block of rows.

        Args:
            maps: of the source model by name.
            entries: the maps of the rows.
            rows: n row numbers.
            nearest: row number of the image of nearest pose, -1 where none is known, (n,).
            faces: where the faces are, (n, size, size) bool; None where it is not known.
            percents, controls, seeds: which.
            size: side of the evaluated crop.
            device: where masks are made.
        """
        made = Supports(entries, Masks(size, device))
        row_of = torch.from_numpy(entries.row).to(device)
        all_rows = torch.arange(len(rows), device=device)
        moves = [torch.from_numpy(random_moves(rows.tolist(), seed, size)).to(device) for seed in seeds]
        goals = []
        if faces is not None and "shifted-on-face" in controls:
            goals = [torch.from_numpy(random_pixels(rows.tolist(), s, faces)).to(device) for s in seeds]
        for name, source in maps.items():
            scored = _scored(source, entries, rows, nearest, controls, seeds)
            stacked = torch.cat([values for group in scored.values() for values in group])
            there = ~stacked.flatten(1).isnan().any(dim=1)
            masks = support(stacked, list(percents), size, source.centres)
            start = 0
            for control, group in scored.items():
                stop = start + len(group) * len(group[0])
                drawn = len(group), len(group[0])  # of which the second may be 0
                mine = masks[start:stop].unflatten(0, drawn).transpose(0, 1)
                found = there[start:stop].view(drawn).T
                start = stop
                whose = row_of if control in BY_ENTRY else all_rows
                numbers = made.masks.add(mine, whose).transpose(1, 2)
                into = made.by_entry if control in BY_ENTRY else made.by_row
                into[name, control] = Numbers(numbers, found)
                if control == OWN:
                    made.sizes[name] = mine[:, 0].sum(dim=(2, 3))
                    own, own_found = mine[:, 0], found
            movers = {
                "shifted": [moved(own, move[row_of]) for move in moves if "shifted" in controls],
                "shifted-on-face": [moved_onto(own, goal[row_of].clamp_min(0)) for goal in goals],
            }
            for control, shifted in movers.items():
                if shifted:
                    numbers = made.masks.add(torch.stack(shifted, dim=1), row_of).transpose(1, 2)
                    seen = own_found.expand(-1, len(seeds))
                    if control == "shifted-on-face":
                        seen = seen & torch.stack([goal[row_of, 0] >= 0 for goal in goals], dim=1)
                    made.by_entry[name, control] = Numbers(numbers, seen)
        return made


def _scored(
    source: OcclusionMaps,
    entries: Entries,
    rows: np.ndarray,
    nearest: np.ndarray,
    controls: Sequence[str],
    seeds: Sequence[int],
) -> dict[str, list[Tensor]]:
    """Control -> maps whose supports it takes, one (E or n, h, w) for each draw."""
    found = {OWN: [source.own(entries)]}
    if "other-identity" in controls:
        found["other-identity"] = [source.others(entries, seed) for seed in seeds]
    if "population" in controls:
        found["population"] = [source.population(rows)]
    if "nearest-pose" in controls:
        found["nearest-pose"] = [source.nearest(rows, nearest)]
    masters = [control for control in controls if control.startswith("master")]
    if masters:
        made = source.masters(rows, [master_count(control) for control in masters])
        found |= {control: [maps] for control, maps in zip(masters, made, strict=True)}
    return {control: [maps.float() for maps in group] for control, group in found.items()}


def master_count(control: str) -> int | None:
    """How many images a master averages; None for all others."""
    count = control.removeprefix("master").removeprefix("-")
    return int(count) if count else None


def pixel_counts(percents: Sequence[float], size: int) -> list[int]:
    """Pixels of whole supports in a crop, as `support` counts them."""
    return [round(percent / 100 * size * size) for percent in percents]


def drawn_masks(
    rows: np.ndarray,
    percents: Sequence[float],
    controls: Sequence[str],
    seeds: Sequence[int],
    size: int,
    device: torch.device,
) -> Drawn:
    """Masks of a block of rows that depend on no map, as many pixels as whole supports have."""
    drawn = Drawn(Masks(size, device))
    counts = torch.tensor(pixel_counts(percents, size), device=device).view(1, 1, -1, 1, 1)
    all_rows = torch.arange(len(rows), device=device)
    for control in controls:
        if control in BLOCKS:
            ranks = random_ranks(rows.tolist(), seeds, size, BLOCKS[control]).to(device)
        elif control == CENTRE:
            ranks = centre_ranks(size).to(device).expand(len(rows), 1, size, size)
        else:
            continue
        masks = ranks[:, :, None] < counts
        drawn.numbers[control] = drawn.masks.add(masks, all_rows).transpose(1, 2)
    return drawn

"""Deletion and insertion: the whole crop is filled, or comes back, in the order of a map or of a control.

Curves are of one map an image, that of `mean-map` where the run kept maps of single references, and of the
first draw. Pixels where a map is zero come last, in random order. There are none of the fill `inpaint`, for
which nothing is left to paint from in the end.

Reference: Petsiuk, Das and Saenko, RISE, BMVC 2018.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from leamfast.engine.occlusion_maps import Entries, OcclusionMaps
from leamfast.engine.occlusion_supports import pixel_counts
from leamfast.leam.controls import centre_ranks, full_ranks, moved, random_moves, random_ranks
from leamfast.leam.occlusion import Masks
from leamfast.store.occlusion import OWN

__all__ = ["CURVED", "Curves", "curve_masks"]

CURVED = (OWN, "random", "shifted", "other-identity", "population", "centre")
"""Whose curves are taken."""


@dataclass(frozen=True)
class Curves:
    """Masks of the curves of a block of rows.

    Attributes:
        masks: all masks.
        whole: number of the mask that fills everything, (n,).
        numbers: (map, control) -> numbers of the masks between, (n, 2, steps - 2): deletion and insertion.
            A control that depends on no map stands under the empty name.
        found: (map, control) -> whether there is such a map, (n,).
    """

    masks: Masks
    whole: Tensor
    numbers: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    found: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def cosines(
        self,
        name: str,
        control: str,
        units: Tensor,
        cosine: Callable[[Tensor], Tensor],
        before: Tensor,
    ) -> Tensor | None:
        """Cosines along both curves, (n, 2, steps); None for a control without curves.

        Args:
            name, control: which.
            units: unit embeddings of all masks, (M, D).
            cosine: (n, ..., D) -> mean cosine with each row's references, (n, ...).
            before: of the rows as they are, (n,).
        """
        key = (name, control) if (name, control) in self.numbers else ("", control)
        if key not in self.numbers:
            return None
        between = cosine(units[self.numbers[key]])
        filled = cosine(units[self.whole][:, None])[:, 0]
        deletion = torch.cat([before[:, None], between[:, 0], filled[:, None]], dim=1)
        insertion = torch.cat([filled[:, None], between[:, 1], before[:, None]], dim=1)
        both = torch.stack([deletion, insertion], dim=1)
        return both.masked_fill(~self.found[key][:, None, None], torch.nan)


def curve_masks(
    maps: Mapping[str, OcclusionMaps],
    entries: Entries,
    rows: np.ndarray,
    controls: Sequence[str],
    steps: Sequence[float],
    seed: int,
    size: int,
    device: torch.device,
) -> Curves:
    """Masks of curves of a block of rows.

    Args:
        maps: of the source model by name.
        entries: one map a row.
        rows: n row numbers.
        controls: of the pass; those of `CURVED` have curves.
        steps: percents, from 0 to 100.
        seed: of the draws.
        size: side of the evaluated crop.
        device: where masks are made.
    """
    masks = Masks(size, device)
    all_rows = torch.arange(len(rows), device=device)
    everything = torch.ones((len(rows), size, size), dtype=torch.bool, device=device)
    made = Curves(masks, masks.add(everything, all_rows))
    counts = torch.tensor(pixel_counts(steps[1:-1], size), device=device).view(1, -1, 1, 1)
    present = torch.ones(len(rows), dtype=torch.bool, device=device)

    def add(name: str, control: str, ranks: Tensor, found: Tensor) -> None:
        filled = ranks[:, None] < counts
        made.numbers[name, control] = masks.add(torch.stack([filled, ~filled], dim=1), all_rows)
        made.found[name, control] = found

    random = random_ranks(rows.tolist(), [seed], size)[:, 0].to(device)
    if "random" in controls:
        add("", "random", random, present)
    if "centre" in controls:
        add("", "centre", centre_ranks(size).to(device).expand(len(rows), -1, -1), present)
    moves = torch.from_numpy(random_moves(rows.tolist(), seed, size)).to(device)
    for name, source in maps.items():
        scored = {OWN: source.of_rows(rows)}
        if "other-identity" in controls:
            scored["other-identity"] = source.others(entries, seed)
        if "population" in controls:
            scored["population"] = source.population(rows)
        for control, values in scored.items():
            there = ~values.flatten(1).isnan().any(dim=1)
            ranks = full_ranks(values.float().nan_to_num(), random, size, source.centres)
            add(name, control, ranks, there)
            if control == OWN and "shifted" in controls:
                add(name, "shifted", moved(ranks[:, None], moves)[:, 0], there)
    return made

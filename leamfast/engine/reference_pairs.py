"""Pairs of maps of single references, compared while a run that keeps only their mean still has them.

    A  same image, two references      B  M(a|b) against M(b|a)

A run with `--references each` keeps the maps themselves, and `leamfast compare` compares those.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from leamfast.engine.pair_lists import Maps, PairList, blocks, same_image, shared_maps, swapped
from leamfast.engine.pair_values import pair_values, stored_values
from leamfast.engine.pair_views import View, common_grid, views
from leamfast.leam.fused import fuse
from leamfast.leam.program import Program
from leamfast.store.arrays import THRESHOLDS, Array
from leamfast.store.pairs import KINDS

__all__ = ["reference_pairs"]

SOLVED = (1, 100)
"""Percents at which distances are solved, of one pair of each kind and identity: on a CPU the others would
take longer than the maps."""

TOLERANCE = 0.01
"""Of brackets, on a GPU."""

MAPS = 1024
"""Maps of single references that are compared at once, whole images of them."""


def reference_pairs(
    program: Program, each: Mapping[str, Array], identities: Sequence[int], seed: int
) -> dict[str, Array]:
    """BC and EMD of all pairs A and B of a shard, for every tap and `fused`.

    Args:
        program: the model's program.
        each: `layer/<tap>/each/{map,image_row,reference_row}`, numbers of rows within the shard.
        identities: of each row.
        seed: of the draw of pairs whose distance is solved.

    Returns:
        `layer/<tap>/each_pair/{kind,i,j,i_ref,j_ref,bc,emd,emd_lower,emd_upper,emd_kind}` and the same of
        `fused`, over dimensions (each_pair,) and (each_pair, threshold); NaN where nothing was computed.
    """
    size = program.model.preprocessing.size
    people = np.asarray(identities)
    rows, maps = {}, {}
    for tap in program.taps:
        own = [each[f"layer/{tap.name}/each/{name}"].values for name in ("image_row", "reference_row", "map")]
        rows[tap.name], maps[tap.name] = (own[0], own[1]), torch.from_numpy(own[2])
    found: dict[str, Array] = {}
    for tap in program.taps:
        image, reference = rows[tap.name]
        centres = program.centres[tap.name]
        view = View(size, centres, common_grid(tap.height, tap.width), framed=False)
        stored = maps[tap.name]

        def of_tap(places: np.ndarray, stored: Tensor = stored) -> Tensor:
            return stored[torch.from_numpy(places)].to(program.model.device).float()

        about = Maps(image, reference, people[image])
        found |= _arrays(f"layer/{tap.name}", _compared(about, of_tap, view, seed))
    image, reference, numbers = shared_maps(rows, len(people))

    def fused(places: np.ndarray) -> Tensor:
        taps = [maps[tap.name][torch.from_numpy(numbers[tap.name][places])] for tap in program.taps]
        on_device = [tap.to(program.model.device).float() for tap in taps]
        return fuse(on_device, size, [program.centres[tap.name] for tap in program.taps])

    about = Maps(image, reference, people[image])
    view = View(size, None, common_grid(size, size), framed=False)
    return found | _arrays("fused", _compared(about, fused, view, seed))


def _compared(
    about: Maps, read: Callable[[np.ndarray], Tensor], view: View, seed: int
) -> dict[str, np.ndarray]:
    """Values of all pairs A and B of one map, by the name of their array."""
    lists = [same_image(about, None, seed), swapped(about, seed)]
    kind = np.concatenate([np.full(len(pairs), KINDS.index(pairs.kind), np.int8) for pairs in lists])
    i, j = (np.concatenate([getattr(pairs, side) for pairs in lists]) for side in ("first", "second"))
    solved = np.concatenate([_solved(about, pairs) for pairs in lists])
    order = np.argsort(about.identity[i], kind="stable")
    kind, i, j, solved = kind[order], i[order], j[order], solved[order]
    shape = (len(i), len(THRESHOLDS))
    values, how = np.full((4, *shape), np.nan), np.zeros(shape, np.uint8)
    for block in blocks(i, j, MAPS):
        places, numbers = np.unique(np.concatenate([i[block], j[block]]), return_inverse=True)
        pairs = np.ascontiguousarray(numbers.reshape(2, -1).T)
        found = pair_values(views(view, read(places)), None, pairs, solved[block], TOLERANCE)
        for n, array in enumerate((found.bc, found.emd, found.lower, found.upper)):
            values[n, block] = array
        how[block] = found.how
    bc, emd, lower, upper = stored_values(values, how)
    return {
        "kind": kind, "i": about.image[i], "j": about.image[j],
        "i_ref": about.reference[i], "j_ref": about.reference[j],
        "bc": bc, "emd": emd, "emd_lower": lower, "emd_upper": upper, "emd_kind": how,
    }  # fmt: skip


def _solved(about: Maps, pairs: PairList) -> np.ndarray:
    """One pair of each identity, (n, T): turns go round the identities."""
    people = len(np.unique(about.identity[pairs.first]))
    return (pairs.turn < people)[:, None] & np.isin(THRESHOLDS, SOLVED)


def _arrays(group: str, values: Mapping[str, np.ndarray]) -> dict[str, Array]:
    numbered = ("i", "j", "i_ref", "j_ref")
    return {
        f"{group}/each_pair/{name}": Array(
            array, ("each_pair", "threshold")[: array.ndim], "row" if name in numbered else ""
        )
        for name, array in values.items()
    }

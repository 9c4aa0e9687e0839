"""Pairs of maps of single references, compared while a run that keeps only their mean still has them.

    A  same image, two references      B  M(a|b) against M(b|a)

A run with `--references each` keeps the maps themselves, and `leamfast compare` compares those.

Distances take longer than the maps, so one pair of each kind and identity has its own solved. It is drawn by
image, so that it is the same however an identity is cut. The slices of a split identity keep what they cannot
decide: the maps of one image, which of all slices may be the drawn one, and the maps of pairs B, of which the
other map lies in another slice. The shard that closes the identity compares those.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from leamfast.engine.pair_lists import Maps, PairList, blocks, same_image, shared_maps, swapped
from leamfast.engine.pair_values import pair_values, stored_values
from leamfast.engine.pair_views import View, common_grid, views
from leamfast.engine.reference_pools import ReferencePool
from leamfast.leam.fused import fuse
from leamfast.leam.program import Program
from leamfast.leam.references import draw_references
from leamfast.store.arrays import KEPT, THRESHOLDS, Array
from leamfast.store.pairs import KINDS

__all__ = ["kept_reference_pairs", "reference_pairs"]

SOLVED = (1, 100)
"""Percents at which distances are solved, of one pair of each kind and identity: on a CPU the others would
take longer than the maps."""

TOLERANCE = 0.01
"""Of brackets, on a GPU."""

MAPS = 1024
"""Maps of single references that are compared at once, whole images of them."""

CANDIDATE = "kept/candidate"


@dataclass(frozen=True, eq=False)
class _Group:
    """Maps of single references by one tap, or fused.

    Attributes:
        path: below that of the model.
        maps: what they are of, by positions in the manifest.
        read: numbers of maps -> the maps, (n, h, w).
        view: how they are compared.
    """

    path: str
    maps: Maps
    read: Callable[[np.ndarray], Tensor]
    view: View


def reference_pairs(
    program: Program,
    each: Mapping[str, Array],
    identities: Sequence[int],
    positions: Sequence[int],
    seed: int,
    most: int,
    whole: ReferencePool | None = None,
) -> dict[str, Array]:
    """BC and EMD of all pairs A and B of a shard, for every tap and `fused`.

    Args:
        program: the model's program.
        each: `layer/<tap>/each/{map,image_row,reference_row}`: maps, numbers of rows within the shard, and
            positions.
        identities: of each row.
        positions: of each row in the manifest.
        seed: of the draws.
        most: references of an image, at most.
        whole: of all images of the identity of which the shard is a slice.

    Returns:
        `layer/<tap>/each_pair/{kind,i,j,i_ref,j_ref,bc,emd,emd_lower,emd_upper,emd_kind}` and the same of
        `fused`, over dimensions (each_pair,) and (each_pair, threshold); NaN where nothing was computed. Of a
        slice those that need no other slice, and what `kept_reference_pairs` takes.
    """
    people, places = np.asarray(identities), np.asarray(positions, np.int64)
    maps = {}
    for tap in program.taps:
        names = ("image_row", "reference_row", "map")
        rows, reference, stored = (each[f"layer/{tap.name}/each/{name}"].values for name in names)
        maps[tap.name] = Maps(places[rows], reference, people[rows]), stored
    groups = list(_groups(program, maps))
    if whole is None:
        both = {g.path: [same_image(g.maps, None, seed), swapped(g.maps, seed)] for g in groups}
        return _all_arrays(groups, both, seed)
    within = {group.path: same_image(group.maps, None, seed) for group in groups}
    candidates = {_drawn_image(g.maps.image[within[g.path].first], seed) for g in groups} - {-1}
    others = {g.path: [_of_images(g.maps, within[g.path], candidates, False)] for g in groups}
    found = _all_arrays(groups, others, None)
    found[CANDIDATE] = Array(np.array(sorted(candidates), np.int64), (KEPT,))
    for name, (about, stored) in maps.items():
        kept = np.isin(about.image, list(candidates)) | _mutual(about, whole.positions, most, seed)
        for field, values in (("image", about.image), ("reference", about.reference), ("maps", stored)):
            array = values[kept]
            found[f"layer/{name}/kept/{field}"] = Array(array, (KEPT, "h", "w")[: array.ndim])
    return found


def kept_reference_pairs(
    program: Program, kept: Sequence[Mapping[str, np.ndarray]], seed: int
) -> dict[str, Array]:
    """The pairs of a split identity that its slices left to the shard that closes it.

    Args:
        program: the model's program.
        kept: of each slice with a usable image, in order: `kept/candidate` and
            `layer/<tap>/kept/{image,reference,maps}`.
        seed: of the draws.

    Returns:
        As `reference_pairs`.
    """
    maps = {}
    for tap in program.taps:
        image, reference, stored = (
            np.concatenate([own[f"layer/{tap.name}/kept/{name}"] for own in kept])
            for name in ("image", "reference", "maps")
        )
        maps[tap.name] = Maps(image, reference, np.zeros(len(image), np.int64)), stored
    candidates = {int(image) for own in kept for image in own[CANDIDATE]}
    groups = list(_groups(program, maps))
    lists = {}
    for group in groups:
        within = _of_images(group.maps, same_image(group.maps, None, seed), candidates, True)
        lists[group.path] = [within, swapped(group.maps, seed)]
    return _all_arrays(groups, lists, seed)


def _groups(program: Program, maps: Mapping[str, tuple[Maps, np.ndarray]]) -> Iterator[_Group]:
    """The maps of every tap as they are stored, and `fused` of those that every tap has."""
    size, device = program.model.preprocessing.size, program.model.device
    stored = {tap: torch.from_numpy(values) for tap, (_, values) in maps.items()}

    def read(tap: str, places: np.ndarray) -> Tensor:
        return stored[tap][torch.from_numpy(places)].to(device).float()

    for tap in program.taps:
        view = View(size, program.centres[tap.name], common_grid(tap.height, tap.width), framed=False)
        yield _Group(f"layer/{tap.name}", maps[tap.name][0], partial(read, tap.name), view)
    abouts = {tap: about for tap, (about, _) in maps.items()}
    lowest = min((int(min(a.image.min(), a.reference.min())) for a in abouts.values() if len(a)), default=0)
    highest = max((int(max(a.image.max(), a.reference.max())) for a in abouts.values() if len(a)), default=0)
    pairs = {tap: (about.image - lowest, about.reference - lowest) for tap, about in abouts.items()}
    image, reference, numbers = shared_maps(pairs, highest - lowest + 1)

    def fused(places: np.ndarray) -> Tensor:
        taps = [read(tap.name, numbers[tap.name][places]) for tap in program.taps]
        return fuse(taps, size, [program.centres[tap.name] for tap in program.taps])

    first = program.taps[0].name
    about = Maps(image + lowest, reference + lowest, abouts[first].identity[numbers[first]])
    yield _Group("fused", about, fused, View(size, None, common_grid(size, size), framed=False))


def _all_arrays(
    groups: Sequence[_Group], lists: Mapping[str, Sequence[PairList]], seed: int | None
) -> dict[str, Array]:
    """Arrays of the pairs of every group; without a seed no distance is solved."""
    found: dict[str, Array] = {}
    for group in groups:
        for name, values in _compared(group, lists[group.path], seed).items():
            counts = "position" if name in ("i", "j", "i_ref", "j_ref") else ""
            dims = ("each_pair", "threshold")[: values.ndim]
            found[f"{group.path}/each_pair/{name}"] = Array(values, dims, counts)
    return found


def _compared(group: _Group, lists: Sequence[PairList], seed: int | None) -> dict[str, np.ndarray]:
    """Values of pairs of one group, by the name of their array."""
    about = group.maps
    kind = np.concatenate([np.full(len(pairs), KINDS.index(pairs.kind), np.int8) for pairs in lists])
    i, j = (np.concatenate([getattr(pairs, side) for pairs in lists]) for side in ("first", "second"))
    solved = np.concatenate([_solved(about, pairs, seed) for pairs in lists])
    order = np.argsort(about.identity[i], kind="stable")
    kind, i, j, solved = kind[order], i[order], j[order], solved[order]
    shape = (len(i), len(THRESHOLDS))
    values, how = np.full((4, *shape), np.nan), np.zeros(shape, np.uint8)
    for block in blocks(i, j, MAPS):
        places, numbers = np.unique(np.concatenate([i[block], j[block]]), return_inverse=True)
        pairs = np.ascontiguousarray(numbers.reshape(2, -1).T)
        found = pair_values(views(group.view, group.read(places)), None, pairs, solved[block], TOLERANCE)
        for n, array in enumerate((found.bc, found.emd, found.lower, found.upper)):
            values[n, block] = array
        how[block] = found.how
    bc, emd, lower, upper = stored_values(values, how)
    return {
        "kind": kind, "i": about.image[i], "j": about.image[j],
        "i_ref": about.reference[i], "j_ref": about.reference[j],
        "bc": bc, "emd": emd, "emd_lower": lower, "emd_upper": upper, "emd_kind": how,
    }  # fmt: skip


def _solved(about: Maps, pairs: PairList, seed: int | None) -> np.ndarray:
    """Whose distances are solved, (n, T): of each identity one pair of the image that is drawn."""
    chosen = np.zeros(len(pairs), bool)
    images, people = about.image[pairs.first], about.identity[pairs.first]
    if seed is None:
        return chosen[:, None] & np.isin(THRESHOLDS, SOLVED)
    for person in np.unique(people):
        mine = np.flatnonzero(people == person)
        drawn = _drawn_image(images[mine], seed)
        own = mine[images[mine] == drawn]
        chosen[own[np.random.default_rng([seed, 9, drawn]).integers(len(own))]] = True
    return chosen[:, None] & np.isin(THRESHOLDS, SOLVED)


def _drawn_image(images: np.ndarray, seed: int) -> int:
    """One of some images, by their positions: that of the lowest lot; -1 where there is none.

    An image's lot is its own, so the lowest of all slices is the lowest of the lowest.
    """
    everyone = np.unique(images).tolist()
    return min(everyone, key=lambda image: np.random.default_rng([seed, 9, image]).random(), default=-1)


def _of_images(about: Maps, pairs: PairList, images: set[int], inside: bool) -> PairList:
    """The pairs of maps of some images, or of all others."""
    kept = np.isin(about.image[pairs.first], list(images)) == inside
    return PairList(pairs.kind, pairs.first[kept], pairs.second[kept], pairs.turn[kept])


def _mutual(about: Maps, positions: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Which maps are of an image that is a reference of its reference, too."""
    if len(positions) - 1 <= most:
        return np.ones(len(about), bool)  # everyone is everyone's
    drawn = {b: set(draw_references(positions, b, most, seed)) for b in np.unique(about.reference).tolist()}
    pairs = zip(about.image.tolist(), about.reference.tolist(), strict=True)
    return np.array([image in drawn[reference] for image, reference in pairs], bool)

"""Which maps are compared with which: lists of pairs, drawn with a seed where there are too many.

    A  same image, two references          all, or some of each image
    B  M(a|b) against M(b|a)               all
    C  same identity, different images     all pairs of images; of their references those that are drawn
    D  different identities                all, or drawn so that no identity dominates

Distances take much longer than coefficients, so every list says in which order they are to be solved: the
first ones of any list are spread over its identities.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import combinations, product

import numpy as np

__all__ = [
    "Maps",
    "PairList",
    "blocks",
    "different_identities",
    "same_identity",
    "same_image",
    "same_places",
    "shared_maps",
    "swapped",
]

BARREN = 200
"""Rounds without a new pair, after which nearly all pairs of what is there have been drawn."""


@dataclass(frozen=True, eq=False)
class Maps:
    """What a set of maps is of: one entry a map.

    Attributes:
        image: row of the image, or number of the person for maps of identities, (n,).
        reference: row of the only reference, -1 where there is no single one, (n,).
        identity: number of the person, (n,).
    """

    image: np.ndarray
    reference: np.ndarray
    identity: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def keep(self, kept: np.ndarray) -> "Maps":
        """Some of the maps."""
        return Maps(self.image[kept], self.reference[kept], self.identity[kept])


def shared_maps(
    each: Mapping[str, tuple[np.ndarray, np.ndarray]], rows: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Images and references of which every tap has a map.

    Args:
        each: tap -> image and reference of each of its maps, (n,) each, no two alike.
        rows: of the run, which all of them number.

    Returns:
        image and reference, (m,) each, in ascending order; and tap -> numbers of these maps in it, (m,).
    """
    keys = {tap: image * rows + reference for tap, (image, reference) in each.items()}
    shared = reduce(np.intersect1d, keys.values())
    numbers = {}
    for tap, key in keys.items():
        order = np.argsort(key)
        numbers[tap] = order[np.searchsorted(key, shared, sorter=order)]
    image, reference = np.divmod(shared, max(1, rows))
    return image, reference, numbers


@dataclass(frozen=True, eq=False)
class PairList:
    """Pairs of maps of one kind.

    Attributes:
        kind: A, B, C, D, identity or cross.
        first, second: places in the set of maps, (n,) int64.
        turn: place of each pair in the order in which distances are solved, (n,) int64.
        excluded: reason -> pairs of images that are left out for it.
    """

    kind: str
    first: np.ndarray
    second: np.ndarray
    turn: np.ndarray
    excluded: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.first)

    def without(self, excluded: dict[str, int]) -> "PairList":
        """The list with what is left out of it."""
        return replace(self, excluded={reason: number for reason, number in excluded.items() if number})


def same_image(maps: Maps, most: int | None, seed: int) -> PairList:
    """Kind A: maps of one image with two references.

    Args:
        maps: the set.
        most: of pairs. Where there are more, so many of each image are drawn that every image has some.
        seed: of the draws.
    """
    groups = [group for group in _groups(maps.image) if len(group) > 1]
    pairs = [np.stack(np.triu_indices(len(group), 1), axis=1) for group in groups]
    if most is not None and sum(map(len, pairs)) > most:
        share = max(1, most // len(groups))
        rng = np.random.default_rng([seed, 7])
        pairs = [own[np.sort(rng.permutation(len(own))[:share])] for own in pairs]
    return _listed("A", maps, [group[own] for group, own in zip(groups, pairs, strict=True)], seed)


def swapped(maps: Maps, seed: int) -> PairList:
    """Kind B: M(a|b) with M(b|a)."""
    place = {key: n for n, key in enumerate(zip(maps.image.tolist(), maps.reference.tolist(), strict=True))}
    pairs = [(n, place[b, a]) for (a, b), n in place.items() if a < b and (b, a) in place]
    return _listed("B", maps, [np.array(pairs)] if pairs else [], seed)


def same_identity(maps: Maps, most: int | None, seed: int) -> PairList:
    """Kind C: maps of different images of one identity; never M(a|b) with M(b|a), which is kind B.

    Args:
        maps: the set.
        most: of pairs. All pairs of images are compared all the same; where maps of single references make
            more, only so many of each pair of images are drawn.
        seed: of the draws.
    """
    groups = [group for group in _groups(maps.identity) if len(group) > 1]
    total = sum(len(group) * (len(group) - 1) // 2 for group in groups)
    if most is None or total <= most or (maps.reference < 0).all():
        return _listed("C", maps, [_all_of_identity(maps, group) for group in groups], seed)
    images = [len(np.unique(maps.image[group])) for group in groups]
    share = max(1, most // max(1, sum(n * (n - 1) // 2 for n in images)))
    return _listed("C", maps, [_drawn_of_identity(maps, group, share, seed) for group in groups], seed)


def different_identities(maps: Maps, most: int | None, seed: int, kind: str = "D") -> PairList:
    """Kinds D and `identity`: maps of different identities.

    Args:
        maps: the set.
        most: of pairs. Where there are more, but not so many pairs of images, all of these are compared and
            pairs of their references drawn. Where there are, identities are paired anew in each round, one
            image of each is drawn, and one of its maps.
        seed: of the draws.
        kind: D, or identity.
    """
    sizes = np.unique(maps.identity, return_counts=True)[1]
    total = (len(maps) ** 2 - int((sizes.astype(np.int64) ** 2).sum())) // 2
    if most is None or total <= most:
        pairs = [_crossed(a, b) for a, b in combinations(list(_groups(maps.identity)), 2)]
        return _listed(kind, maps, pairs, seed)
    people = [_images_of(maps, group) for group in _groups(maps.identity)]
    images = np.array([len(images) for images in people])
    between = int(images.sum() ** 2 - (images**2).sum()) // 2
    if between <= most:
        rng = np.random.default_rng([seed, 6])
        crossed = (pair for a, b in combinations(people, 2) for pair in product(a, b))
        return _listed(kind, maps, [_drawn(maps, a, b, most // between, rng) for a, b in crossed], seed)
    drawn = np.array(list(_rounds(maps, most, seed)), np.int64).reshape(-1, 2)
    turn = np.arange(len(drawn))
    order = np.lexsort((drawn[:, 1], drawn[:, 0]))  # near ones read the same maps
    return PairList(kind, drawn[order, 0], drawn[order, 1], turn[order])


def same_places(kind: str, maps: Maps, seed: int) -> PairList:
    """Each map with that of the same place in another set."""
    places = np.arange(len(maps))
    return _listed(kind, maps, [np.stack([places, places], axis=1)], seed)


def blocks(first: np.ndarray, second: np.ndarray, most: int) -> Iterator[slice]:
    """Runs of pairs, (n,) each, that are of at most so many maps: these are held at once."""
    waiting = [slice(0, len(first))] if len(first) else []
    while waiting:
        block = waiting.pop()
        pairs = block.stop - block.start
        if pairs == 1 or len(np.union1d(first[block], second[block])) <= most:
            yield block
        else:
            middle = block.start + pairs // 2
            waiting += [slice(middle, block.stop), slice(block.start, middle)]


def _groups(values: np.ndarray) -> Iterator[np.ndarray]:
    """Places of equal values, in the order of the values."""
    order = np.argsort(values, kind="stable")
    borders = np.flatnonzero(np.diff(values[order])) + 1
    return iter(np.split(order, borders) if len(order) else [])


def _crossed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Every place of a with every place of b, (n, 2)."""
    return np.stack(np.meshgrid(a, b, indexing="ij"), axis=-1).reshape(-1, 2)


def _all_of_identity(maps: Maps, group: np.ndarray) -> np.ndarray:
    first, second = np.triu_indices(len(group), 1)
    first, second = group[first], group[second]
    kept = (maps.image[first] != maps.image[second]) & ~_swapped(maps, first, second)
    return np.stack([first[kept], second[kept]], axis=1)


def _swapped(maps: Maps, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (maps.image[first] == maps.reference[second]) & (maps.reference[first] == maps.image[second])


def _drawn_of_identity(maps: Maps, group: np.ndarray, share: int, seed: int) -> np.ndarray:
    """At most `share` pairs of references of each pair of images, drawn with a seed by identity."""
    rng = np.random.default_rng([seed, 8, int(maps.identity[group[0]])])
    images = combinations(_images_of(maps, group), 2)
    found = [_drawn(maps, a, b, share, rng) for a, b in images]
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def _images_of(maps: Maps, group: np.ndarray) -> list[np.ndarray]:
    """The maps of each image of some maps."""
    return [group[own] for own in _groups(maps.image[group])]


def _drawn(maps: Maps, a: np.ndarray, b: np.ndarray, share: int, rng: np.random.Generator) -> np.ndarray:
    """At most `share` pairs of the maps of two images, (n, 2)."""
    pairs = _crossed(a, b)
    free = np.flatnonzero(~_swapped(maps, pairs[:, 0], pairs[:, 1]))
    return pairs[np.sort(rng.permutation(free)[:share])]


def _rounds(maps: Maps, most: int, seed: int) -> Iterator[tuple[int, int]]:
    """Distinct pairs of maps of two identities, every identity once a round."""
    rng = np.random.default_rng([seed, 4])
    order = np.lexsort((maps.image, maps.identity))
    image_of, identity_of = maps.image[order], maps.identity[order]
    first_map = np.flatnonzero(np.r_[True, np.diff(image_of) != 0])  # of each image
    maps_of_image = np.diff(np.r_[first_map, len(order)])
    first_image = np.flatnonzero(np.r_[True, np.diff(identity_of[first_map]) != 0])  # of each identity
    images_of = np.diff(np.r_[first_image, len(first_map)])
    half = len(first_image) // 2
    seen: set[tuple[int, int]] = set()
    barren = 0
    while half and barren < BARREN:
        people = rng.permutation(len(first_image))
        sides = []
        for side in (people[:half], people[half : 2 * half]):
            image = first_image[side] + rng.integers(images_of[side])
            sides.append(order[first_map[image] + rng.integers(maps_of_image[image])])
        barren += 1
        for a, b in zip(sides[0].tolist(), sides[1].tolist(), strict=True):
            pair = (min(a, b), max(a, b))
            if pair in seen:
                continue
            barren = 0
            seen.add(pair)
            yield pair
            if len(seen) == most:
                return


def _listed(kind: str, maps: Maps, pairs: list[np.ndarray], seed: int) -> PairList:
    """A list of pairs, whose turns go round the identities, or the pairs of identities."""
    found = np.concatenate(pairs).astype(np.int64) if pairs else np.empty((0, 2), np.int64)
    people = np.sort(np.unique(maps.identity[found], return_inverse=True)[1].reshape(-1, 2), axis=1)
    group = people[:, 0] * (people.max(initial=0) + 1) + people[:, 1]
    return PairList(kind, found[:, 0], found[:, 1], _turns(group, seed))


def _turns(groups: np.ndarray, seed: int) -> np.ndarray:
    """A random order in which every group comes once before any comes twice; the place of each in it."""
    rng = np.random.default_rng([seed, 5])
    shuffled = rng.permutation(len(groups))
    order = shuffled[np.argsort(groups[shuffled], kind="stable")]
    begins = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0]) if len(groups) else order
    lengths = np.diff(np.r_[begins, len(groups)]) if len(groups) else begins
    times = np.arange(len(groups)) - np.repeat(begins, lengths)
    turns = np.empty(len(groups), np.int64)
    turns[order[np.lexsort((rng.random(len(groups)), times))]] = np.arange(len(groups))
    return turns

"""All pairs of a run that are worth comparing, as tiles: every model, map and kind."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import combinations

import numpy as np

from leamfast.engine.compare import OF_REFERENCES, CompareSettings, source_of
from leamfast.engine.pair_lists import (
    Maps,
    PairList,
    different_identities,
    same_identity,
    same_image,
    same_places,
    swapped,
)
from leamfast.engine.pair_maps import FUSED
from leamfast.engine.pair_tiles import PairTile, cut
from leamfast.store.pairs import COUNTS, KINDS
from leamfast.store.results import Results

__all__ = ["plan_pairs"]


def plan_pairs(
    results: Results, settings: CompareSettings, kinds: Sequence[str], most: int | None, seed: int
) -> list[PairTile]:
    """Tiles of all pairs, in the order in which they are computed.

    Args:
        results: the run.
        settings: of the comparison.
        kinds: which of A, B, C, D, identity and cross.
        most: pairs of one list; None for all. Every image has pairs A and every two images of an identity
            have a pair C all the same.
        seed: of the draws.
    """
    tiles: list[PairTile] = []
    lists = _Lists(most, seed)
    for model in results.models:
        for name in (*results.taps(model), FUSED):
            for pairs in _of_map(results, settings, model, name, kinds, lists):
                tiles += cut(len(tiles), model, name, pairs)
    for model, other in combinations(results.models, 2) if "cross" in kinds else ():
        for name in (*(tap for tap in results.taps(model) if tap in results.taps(other)), FUSED):
            pairs = _across(results, settings, model, other, name, seed)
            tiles += cut(len(tiles), model, name, pairs, other)
    return tiles


class _Lists:
    """Lists of pairs, each made once: taps of a model have maps of the same images as a rule."""

    def __init__(self, most: int | None, seed: int) -> None:
        self.most, self.seed = most, seed
        self._made: dict[tuple[str, bytes], PairList] = {}

    def of(self, kind: str, maps: Maps, places: np.ndarray) -> PairList:
        """Pairs of a kind.

        Args:
            kind: A, B, C, D or identity.
            maps: the maps that are compared.
            places: theirs among all maps of their source.
        """
        total = sha256()
        for values in (places, maps.image, maps.reference, maps.identity):
            total.update(np.ascontiguousarray(values).data)
        key = kind, total.digest()
        if key not in self._made:
            self._made[key] = _placed(self._make(kind, maps), places)
        return self._made[key]

    def _make(self, kind: str, maps: Maps) -> PairList:
        if kind == "A":
            return same_image(maps, self.most, self.seed)
        if kind == "B":
            return swapped(maps, self.seed)
        if kind == "C":
            return same_identity(maps, self.most, self.seed)
        return different_identities(maps, self.most, self.seed, kind)


def _of_map(
    results: Results,
    settings: CompareSettings,
    model: str,
    name: str,
    kinds: Sequence[str],
    lists: "_Lists",
) -> Iterator[PairList]:
    source = source_of(results, settings, model, name, "C")
    maps, there = source.maps, source.usable
    repeated = results.duplicates(model) >= 0
    kept = there & ~repeated[maps.image]
    if settings.each:
        kept &= ~repeated[maps.reference]
    places, mine = np.flatnonzero(kept), maps.keep(kept)
    same, different = _left_out(results.identities, maps.image[there], mine.image)
    for kind in kinds:
        if kind in OF_REFERENCES and not settings.each:
            yield from _of_run(results, model, name, kind)
        elif kind == "identity":
            people = source_of(results, settings, model, name, "identity")
            present = np.flatnonzero(people.usable)
            _, out = _left_out(np.arange(len(people.maps)), present, present)
            yield lists.of(kind, people.maps.keep(people.usable), present).without(out)
        elif kind != "cross":
            out = {"C": same, "D": different}.get(kind, {})
            yield lists.of(kind, mine, places).without(out)


def _of_run(results: Results, model: str, name: str, kind: str) -> Iterator[PairList]:
    """Pairs that the run compared while it had the maps, by their numbers there; none where it did not."""
    stored = results.each_pairs(model, name)
    if stored is not None:
        repeated = results.duplicates(model) >= 0
        mine = stored["kind"] == KINDS.index(kind)
        kept = mine & ~np.logical_or.reduce([repeated[stored[side]] for side in COUNTS])
        numbers = np.flatnonzero(kept)
        yield PairList(kind, numbers, numbers, np.zeros(len(numbers), np.int64))


def _across(
    results: Results, settings: CompareSettings, model: str, other: str, name: str, seed: int
) -> PairList:
    """Kind cross: the maps of one image by two models."""
    first, second = (source_of(results, settings, m, name, "cross") for m in (model, other))
    both = first.usable & second.usable
    found = _placed(same_places("cross", first.maps.keep(both), seed), np.flatnonzero(both))
    return found.without({"no map": int((~both).sum())})


def _placed(pairs: PairList, places: np.ndarray) -> PairList:
    """A list of pairs of some maps as one of all maps."""
    return PairList(pairs.kind, places[pairs.first], places[pairs.second], pairs.turn)


def _left_out(
    identities: np.ndarray, there: np.ndarray, kept: np.ndarray
) -> tuple[dict[str, int], dict[str, int]]:
    """Pairs of images that are left out and why, of the same and of different identities.

    Args:
        identities: of every row.
        there: rows that have a map.
        kept: rows of those that are compared.
    """
    everyone, mapped, compared = (
        _image_pairs(identities[np.unique(rows)]) for rows in (np.arange(len(identities)), there, kept)
    )
    counts = [{"no map": everyone[n] - mapped[n], "near-duplicate": mapped[n] - compared[n]} for n in (0, 1)]
    return counts[0], counts[1]


def _image_pairs(identities: np.ndarray) -> tuple[int, int]:
    """Pairs of images of the same and of different identities."""
    sizes = np.unique(identities, return_counts=True)[1].astype(np.int64)
    same = int((sizes * (sizes - 1)).sum()) // 2
    return same, len(identities) * (len(identities) - 1) // 2 - same

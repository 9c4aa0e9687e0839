"""The pass over pairs: a tile of pairs of stored maps -> BC and EMD, with and without the position prior.

A `CompareFunction` is what `engine.run` carries to its workers: small and picklable; the run is opened in
each process at its first tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from leamfast.engine.batch import set_up_torch
from leamfast.engine.pair_lists import PairList, blocks
from leamfast.engine.pair_maps import MapSource, Of
from leamfast.engine.pair_tiles import PairTile
from leamfast.engine.pair_values import PairValues, pair_values, solved_at, stored_values
from leamfast.engine.pair_views import views
from leamfast.store.arrays import THRESHOLDS
from leamfast.store.pairs import PRIORS, PairTable, Tile, write_tile
from leamfast.store.results import Results, open_results

__all__ = ["OF_REFERENCES", "CompareFunction", "CompareSettings", "TileSink", "source_of"]

OF_REFERENCES = ("A", "B")
"""Kinds whose maps are of single references."""

PIXELS = 2**24
"""Pixels of upsampled maps that are held at once: 64 MB of float32, and about five times that in all."""


@dataclass(frozen=True)
class CompareSettings:
    """What every tile is computed with.

    Attributes:
        root: the result folder.
        emd_pairs: distances of each list that are solved; None for all.
        emd_percents: thresholds at which they are.
        tolerance: of brackets.
        device, threads: who computes.
        aligned: how the run aligned faces.
        each: whether the run kept maps of single references.
        run: SHA-256 of what the values depend on, by which tiles say what they were made from.
    """

    root: Path
    emd_pairs: int | None
    emd_percents: tuple[int, ...]
    tolerance: float
    device: str
    threads: int
    aligned: str
    each: bool
    run: str


def source_of(results: Results, settings: CompareSettings, model: str, name: str, kind: str) -> MapSource:
    """Where the maps of a kind of pairs come from."""
    of: Of = {"identity": "person", "cross": "row"}.get(kind, "each" if settings.each else "row")  # type: ignore[assignment]
    aligned = settings.aligned if kind == "cross" else None
    return MapSource(results, model, name, of, settings.device, aligned)


class CompareFunction:
    """Tile -> table of pairs."""

    def __init__(self, settings: CompareSettings) -> None:
        self.settings = settings
        self._sources: dict[tuple[str, str, str], MapSource] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "_sources": {}}

    @cached_property
    def results(self) -> Results:
        """The run, opened at first use."""
        set_up_torch(self.settings.threads, self.settings.device)
        return open_results(self.settings.root, with_pairs=False)

    def close(self) -> None:
        """Close the run, where it was opened."""
        if "results" in self.__dict__:
            self.results.close()

    def _source(self, model: str, name: str, kind: str) -> MapSource:
        """A source with what it has read of its map; those of other maps are let go."""
        key = model, name, "cross" if kind == "cross" else "identity" if kind == "identity" else ""
        if key not in self._sources:
            self._sources = {k: s for k, s in self._sources.items() if k[1] == name and k[2] == key[2]}
            self._sources[key] = source_of(self.results, self.settings, model, name, kind)
        return self._sources[key]

    def __call__(self, tile: PairTile, ahead: PairTile | None = None) -> tuple[PairTable, Tile]:
        """Compute one tile, or take it from the run, which may have had maps that it did not keep."""
        kind, pairs = tile.pairs.kind, tile.pairs
        if kind in OF_REFERENCES and not self.settings.each:
            return self._of_run(tile)
        first = self._source(tile.model, tile.name, kind)
        second = self._source(tile.other_model, tile.name, kind) if tile.other_model else first
        shape = (len(pairs), len(THRESHOLDS), len(PRIORS))
        values = np.full((4, *shape), np.nan)
        how = np.zeros(shape, np.uint8)
        solved = solved_at(pairs.turn, self.settings.emd_pairs, self.settings.emd_percents)
        for prior, name in enumerate(PRIORS):
            for block, found in self._values(first, second, pairs, solved, name == "removed"):
                for n, array in enumerate((found.bc, found.emd, found.lower, found.upper)):
                    values[n, block, :, prior] = array
                how[block, :, prior] = found.how
        bc, emd, lower, upper = stored_values(values, how)
        table = PairTable(
            model=tile.model,
            tap=tile.name,
            kind=kind,
            i=first.maps.image[pairs.first],
            j=second.maps.image[pairs.second],
            i_ref=first.maps.reference[pairs.first],
            j_ref=second.maps.reference[pairs.second],
            bc=bc,
            emd=emd,
            emd_lower=lower,
            emd_upper=upper,
            emd_kind=how,
            grid=first.view.grids,
            other_model=tile.other_model,
            excluded=pairs.excluded,
        )
        return table, Tile(tile.index, tile.count, self.settings.run)

    def _of_run(self, tile: PairTile) -> tuple[PairTable, Tile]:
        """A tile of pairs that were compared while the run had their maps."""
        stored = self.results.each_pairs(tile.model, tile.name)
        assert stored is not None
        values = {name: array[tile.pairs.first] for name, array in stored.items()}
        view = self._source(tile.model, tile.name, "C").view
        table = PairTable(
            model=tile.model,
            tap=tile.name,
            kind=tile.pairs.kind,
            grid=view.grids,
            i=values["i"],
            j=values["j"],
            i_ref=values["i_ref"],
            j_ref=values["j_ref"],
            bc=_prior_kept(values["bc"]),
            emd=_prior_kept(values["emd"]),
            emd_lower=_prior_kept(values["emd_lower"]),
            emd_upper=_prior_kept(values["emd_upper"]),
            emd_kind=_prior_kept(values["emd_kind"]),
        )
        return table, Tile(tile.index, tile.count, self.settings.run)

    def _values(
        self, first: MapSource, second: MapSource, pairs: PairList, solved: np.ndarray, removed: bool
    ) -> Iterator[tuple[slice, PairValues]]:
        """Values of pairs, a block of them at a time."""
        people = 1 + max(int(source.maps.identity.max(initial=0)) for source in (first, second))
        sides = pairs.first * people, pairs.second * people
        if removed:  # what is taken off a map depends on whose map it is compared with
            sides = (
                sides[0] + second.maps.identity[pairs.second],
                sides[1] + first.maps.identity[pairs.first],
            )

        def read(source: MapSource, entries: np.ndarray) -> Iterator[Tensor]:
            places, compared = np.divmod(entries, people)
            maps = source.read_without_prior(places, compared) if removed else source.read(places)
            return views(source.view, maps)

        for block in blocks(*sides, PIXELS // first.size**2):
            mine, theirs = sides[0][block], sides[1][block]
            if first is second:
                entries, numbers = np.unique(np.concatenate([mine, theirs]), return_inverse=True)
                p, q, (i, j) = read(first, entries), None, numbers.reshape(2, -1)
            else:
                (a, i), (b, j) = (np.unique(side, return_inverse=True) for side in (mine, theirs))
                p, q = read(first, a), read(second, b)
            numbered = np.stack([i.reshape(-1), j.reshape(-1)], axis=1)
            yield block, pair_values(p, q, numbered, solved[block], self.settings.tolerance)


class TileSink:
    """Writes tiles into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, result: tuple[PairTable, Tile]) -> None:
        write_tile(self.folder, *result)


def _prior_kept(values: np.ndarray) -> np.ndarray:
    """Values (n, T) of maps as they are, as (n, T, priors): without the prior there are none."""
    missing = np.nan if values.dtype.kind == "f" else 0
    found = np.full((*values.shape, len(PRIORS)), missing, values.dtype)
    found[..., PRIORS.index("kept")] = values
    return found

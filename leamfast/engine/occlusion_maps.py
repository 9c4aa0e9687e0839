"""The maps whose supports are occluded: an image's own, and those of others that stand in for it.

All are at their own resolution, to be cut to their supports in the crop of the evaluated model.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from leamfast.engine.pair_lists import Maps
from leamfast.engine.pair_maps import MapSource
from leamfast.leam.controls import draw
from leamfast.leam.fused import normalise
from leamfast.store.results import Results

__all__ = ["OcclusionMaps", "Entries"]

OTHER, MASTER = 300, 301
"""Of draws: what they are for."""

TRIES = 100

ROUNDING = 1e-6
"""Of a sum of maps: how much it may be off, as means are kept in float32."""


class Entries:
    """The maps of some rows that are occluded one by one, the same ones of every tap.

    Attributes:
        place: of each map in `MapSource.maps`, (E,).
        image: its row number, (E,); `row`: the place of that row among the n, (E,).
        reference: row number of its single reference, -1 where it has all of its image's, (E,).
    """

    def __init__(self, rows: np.ndarray, place: np.ndarray, image: np.ndarray, reference: np.ndarray) -> None:
        self.place, self.image, self.reference = place, image, reference
        self.row = image - rows[0]  # rows follow on each other

    @classmethod
    def of_images(cls, rows: np.ndarray) -> Self:
        """One map of each of n rows."""
        return cls(rows, rows, rows, np.full(len(rows), -1))

    @classmethod
    def of_references(cls, rows: np.ndarray, maps: Maps) -> Self:
        """The maps of n rows against single references."""
        first, last = np.searchsorted(maps.image, [rows[0], rows[-1] + 1])  # in which images ascend
        mine = slice(first, last)
        return cls(rows, np.arange(first, last), maps.image[mine], maps.reference[mine])

    def __len__(self) -> int:
        return len(self.place)


class OcclusionMaps:
    """Maps of one tap, or fused ones, of one source model, as the crop of an evaluated model has them.

    Args:
        results: the run.
        model: whose maps.
        name: a tap, or `fused`.
        each: whether the run kept maps of single references, which are occluded one by one then.
        device: where maps go.
        aligned: None where the evaluated crop is the model's own; else the run's alignment.
        size: side of the evaluated crop.
    """

    def __init__(
        self,
        results: Results,
        model: str,
        name: str,
        each: bool,
        device: str,
        aligned: str | None,
        size: int,
    ) -> None:
        self.rows = MapSource(results, model, name, "row", device, aligned, size)
        self.each = MapSource(results, model, name, "each", device, aligned, size) if each else None
        self.single = self.each or self.rows
        self.identities = results.identities
        self.device = torch.device(device)

    def of_images(self) -> "OcclusionMaps":
        """The same with one map an image, that of `mean-map` where there are maps of single references."""
        return self if self.each is None else self._one_each

    @cached_property
    def _one_each(self) -> "OcclusionMaps":
        rows = self.rows
        return OcclusionMaps(
            rows.results, rows.model, rows.name, False, str(rows.device), rows.aligned, rows.size
        )

    @property
    def centres(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """Where the cells lie in the evaluated crop; None for a plain resize."""
        return self.rows.centres

    def entries(self, rows: np.ndarray) -> Entries:
        """The maps of rows that are occluded one by one."""
        return Entries.of_images(rows) if self.each is None else Entries.of_references(rows, self.each.maps)

    def own(self, entries: Entries) -> Tensor:
        """The maps themselves, (E, h, w); NaN where there is none."""
        return self.single.read(entries.place)

    def others(self, entries: Entries, seed: int) -> Tensor:
        """For each map that of an image of another identity, drawn at random, (E, h, w); NaN for none.

        Maps that are zero are drawn as well: they count among the maps themselves.
        """
        people = self.single.maps.identity
        found = np.full(len(entries), -1)
        for e, (image, place) in enumerate(zip(entries.image.tolist(), entries.place.tolist(), strict=True)):
            random = draw(OTHER, seed, image if self.each is None else int(place))
            found[e] = _of_another(self._there, people, int(people[place]), random)
        return self._read(self.single, found)

    @cached_property
    def _there(self) -> np.ndarray:
        """Places of the maps that there are."""
        return np.flatnonzero(self.single.there)

    def population(self, rows: np.ndarray) -> Tensor:
        """Mean of the sum-normalised maps of all other identities, (n, h, w); NaN where there is none."""
        return self.rows.others(self.identities[rows])

    def of_rows(self, rows: np.ndarray) -> Tensor:
        """The maps of rows, (n, h, w); NaN for row -1, or where there is none."""
        return self._read(self.rows, rows)

    def nearest(self, rows: np.ndarray, nearest: np.ndarray) -> Tensor:
        """The map of another image for each row, without its maps against the row, (n, h, w); NaN for none.

        Args:
            rows: n row numbers.
            nearest: the other images, -1 where there is none, (n,).
        """
        if self.each is None:
            return self.of_rows(nearest)
        found = []
        for row, image in zip(rows.tolist(), nearest.tolist(), strict=True):
            maps = self._unseen(row, np.array([image] if image >= 0 else [], np.int64), 1)
            found.append(_mean(maps, 1))
        return torch.stack(found)

    def masters(self, rows: np.ndarray, counts: Sequence[int | None]) -> list[Tensor]:
        """Means of the sum-normalised maps of other images of the same identity, (n, h, w) for each count.

        Near-duplicates of the row are left out. So are maps of single references of which the row is one: a
        master must not have seen it. Fewer images than asked for make no master: NaN.

        Args:
            rows: n row numbers.
            counts: how many images, drawn by row, those of a small count among those of a larger one; None
                for all others.
        """
        made: list[list[Tensor]] = [[] for _ in counts]
        for row in rows.tolist():
            person = self._images_of(int(self.identities[row]))
            alike = self._alike(row, person)
            images = draw(MASTER, 0, row).permutation(person[~alike])
            maps = self._unseen(row, images, max((n for n in counts if n is not None), default=0))
            for found, count in zip(made, counts, strict=True):
                master = self._all_others(row, images, person[alike]) if count is None else _mean(maps, count)
                found.append(master)
        return [torch.stack(found) for found in made]

    def _alike(self, row: int, images: np.ndarray) -> np.ndarray:
        """Which images are the row, or the same picture as it but for noise, (n,)."""
        original = self._duplicates[images]
        same = self._duplicates[row]
        found = (images == row) | (original == row)
        return found if same < 0 else found | (images == same) | (original == same)

    @cached_property
    def _duplicates(self) -> np.ndarray:
        return self.rows.results.duplicates(self.rows.model)

    def _unseen(self, row: int, images: np.ndarray, most: int) -> Tensor:
        """Sum-normalised maps of up to `most` images, in their order, (m, h, w)."""
        if self.each is None:
            return normalise(self.rows.read(images[:most])) if most else self._none(0)
        found: list[Tensor] = []
        for image in images.tolist():
            if len(found) == most:
                break
            mine = self._of_single(row, image)
            if len(mine):
                found.append(normalise(self.each.read(mine)).mean(dim=0))
        return torch.stack(found) if found else self._none(0)

    def _of_single(self, row: int, image: int) -> np.ndarray:
        """Maps of an image against single references, but for those that the row made."""
        assert self.each is not None
        maps = self.each.maps
        first, last = np.searchsorted(maps.image, [image, image + 1])
        return np.arange(first, last)[maps.reference[first:last] != row]

    def _all_others(self, row: int, images: np.ndarray, alike: np.ndarray) -> Tensor:
        """The master of all images, (h, w): what is left of the sum without the row and those like it."""
        if len(images) == 0:
            return self._none(1)[0]
        if self.each is not None:
            maps = self._unseen(row, images, len(images))
            return _mean(maps, len(maps)) if len(maps) else self._none(1)[0]
        total = self.rows.sums(self.identities[[row]])[0][0]
        rest = total - normalise(self.rows.read(alike)).double().sum(dim=0)
        # Where all others are zero there is none but rounding errors left: no part of any support.
        rest = rest.masked_fill(rest <= ROUNDING * total, 0)
        return (rest / len(images)).float()

    def _images_of(self, identity: int) -> np.ndarray:
        """Rows of an identity that have a map."""
        order, identities = self._by_identity
        first, last = np.searchsorted(identities, [identity, identity + 1])
        return order[first:last]

    @cached_property
    def _by_identity(self) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero(self.rows.usable)  # of which the sums are, too
        rows = rows[np.argsort(self.identities[rows], kind="stable")]
        return rows, self.identities[rows]

    def _read(self, source: MapSource, places: np.ndarray) -> Tensor:
        """Maps of a source; NaN for place -1."""
        there = places >= 0
        if not there.any():
            return self._none(len(places))
        found = source.read(places[there])
        maps = found.new_full((len(places), *found.shape[1:]), torch.nan)
        maps[torch.from_numpy(there).to(maps.device)] = found
        return maps

    def _none(self, count: int) -> Tensor:
        cells = self.rows.read(np.array([0])).shape[1:]
        return torch.full((count, *cells), torch.nan, device=self.device)


def _mean(maps: Tensor, count: int) -> Tensor:
    """Mean of the first maps; NaN where they are fewer."""
    if len(maps) < count:
        return maps.new_full(maps.shape[1:], torch.nan)
    return maps[:count].mean(dim=0)


def _of_another(usable: np.ndarray, people: np.ndarray, own: int, random: np.random.Generator) -> int:
    """One of the usable places that are another person's, or -1; each with the same chance."""
    if len(usable) == 0:
        return -1
    for _ in range(TRIES):
        place = int(usable[random.integers(len(usable))])
        if people[place] != own:
            return place
    rest = usable[people[usable] != own]
    return int(rest[random.integers(len(rest))]) if len(rest) else -1

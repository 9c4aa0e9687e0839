"""Maps of a finished run as pairs are made of them: read, fused, without the position prior, in one frame."""

from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from leamfast.engine.pair_lists import Maps, shared_maps
from leamfast.engine.pair_views import View, common_grid
from leamfast.leam.fused import fuse, normalise
from leamfast.leam.registration import Centres
from leamfast.store.results import Results

__all__ = ["FRAME", "FUSED", "MapSource", "Of"]

FUSED = "fused"
FRAME = 112
"""Side of the ArcFace frame, to which maps of models with different crops are carried."""
ROWS = 256
"""Maps that are read at once where all of them are."""
REMEMBERED = 2048
"""Identities whose mean fused maps are kept, 50 KB each at 112 pixels."""

Of = Literal["row", "each", "person"]


class MapSource:
    """The maps of one model and tap.

    Args:
        results: the run.
        model: whose maps.
        name: a tap, or `fused`.
        of: `row`, one map an image; `each`, one an image and reference; `person`, one an identity.
        device: where maps go.
        aligned: None for the model's own crops; otherwise the run's alignment, and maps lie in a frame that
            it gives all models.
        frame: side of that frame in pixels, as of the crops of a model with this input size.

    Attributes:
        size: side of the crops in pixels, or of the frame.
    """

    def __init__(
        self,
        results: Results,
        model: str,
        name: str,
        of: Of,
        device: str,
        aligned: str | None = None,
        frame: int = FRAME,
    ) -> None:
        self.results, self.model, self.name, self.of = results, model, name, of
        self.device = torch.device(device)
        self.aligned = aligned
        self.crop = results.input_size(model)
        self.size = self.crop if aligned is None else frame
        self.taps = results.taps(model) if name == FUSED else (name,)

    @cached_property
    def maps(self) -> Maps:
        """What the maps are of; those that are missing or zero included."""
        identities = self._identities
        rows = np.arange(len(identities))
        if self.of == "row":
            return Maps(rows, np.full(len(rows), -1), identities)
        if self.of == "person":
            people = np.arange(len(self.results.text("identity/name")))
            return Maps(people, np.full(len(people), -1), people)
        image, reference, _ = self._each
        return Maps(image, reference, identities[image])

    @cached_property
    def _each(self) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Images and references of which every tap has a map, and the number of that map in each tap."""
        each = {}
        for tap in self.taps:
            found = self.results.each(self.model, tap)
            assert found is not None
            each[tap] = found.image, found.reference
        return shared_maps(each, len(self.results))

    @property
    def usable(self) -> np.ndarray:
        """Which maps there are: not missing, and not zero in all taps, (n,)."""
        if self.of == "each":
            found = np.ones(len(self.maps), bool)  # those that are zero have no value
        elif self.of == "row":
            found = self._rows_usable
        else:
            found = self._counts[: len(self.maps)] > 0
        return found

    @property
    def there(self) -> np.ndarray:
        """Which maps of images or references there are, those that are zero included, (n,)."""
        return np.ones(len(self.maps), bool) if self.of == "each" else np.isfinite(self._scales).all(axis=0)

    @cached_property
    def _rows_usable(self) -> np.ndarray:
        return np.isfinite(self._scales).all(axis=0) & (self._scales > 0).any(axis=0)

    @cached_property
    def _scales(self) -> np.ndarray:
        return np.stack([self.results.scale(self.model, tap) for tap in self.taps])

    @cached_property
    def _identities(self) -> np.ndarray:
        return self.results.identities

    @cached_property
    def _counts(self) -> np.ndarray:
        """Images of each identity that have a usable map."""
        people = len(self.results.text("identity/name"))
        return np.bincount(self._identities[self._rows_usable], minlength=people)

    def read(self, places: np.ndarray) -> Tensor:
        """Maps at their own resolution, (n, h, w) float32; NaN where there is none.

        Args:
            places: in `maps`.
        """
        return self._native(places)

    def read_without_prior(self, places: np.ndarray, compared: np.ndarray) -> Tensor:
        """Maps without the position prior, (n, h, w) float32; NaN where there is none.

        Each sum-normalised map p becomes ReLU(p - m), with m the mean of the sum-normalised maps of all
        images but those of its own identity and of the one it is compared with. Were the latter in m, each
        map of a pair of two people would lose a part of the other, and those of one person would not: a
        difference where there is none.

        Args:
            places: in `maps`.
            compared: identity that each map is compared with, (n,).
        """
        maps = normalise(self._native(places))
        two = np.stack([self.maps.identity[places], compared], axis=1)
        left, inverse = np.unique(two, axis=0, return_inverse=True)
        others = torch.from_numpy(self._means_of_others(left)).to(maps)
        return (maps - others[torch.from_numpy(inverse.reshape(-1)).to(maps.device)]).clamp_min(0)

    def others(self, identities: np.ndarray) -> Tensor:
        """Mean of the sum-normalised maps of all images but those of each identity, (n, h, w) float32.

        NaN where there is no other.
        """
        left, inverse = np.unique(identities, return_inverse=True)
        return self._upload(self._means_of_others(np.stack([left, left], axis=1))[inverse.reshape(-1)])

    def sums(self, identities: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Sums of the sum-normalised maps of identities, (n, h, w) float64, and how many they are, (n,)."""
        people, inverse = np.unique(identities, return_inverse=True)
        means, counts = self._means(people)
        sums = np.nan_to_num(means) * counts[:, None, None]
        return self._upload(sums[inverse.reshape(-1)]), counts[inverse.reshape(-1)]

    def _native(self, places: np.ndarray) -> Tensor:
        if self.name != FUSED:
            return self._upload(self._of_tap(self.name, places))
        if self.of == "person":
            return self._upload(self._fused_means(self.maps.image[places])[0].astype(np.float32))
        taps = [self._upload(self._of_tap(tap, places)) for tap in self.taps]
        return fuse(taps, self.size, [self._centres(tap) for tap in self.taps])

    def _of_tap(self, tap: str, places: np.ndarray) -> np.ndarray:
        if self.of == "row":
            return self.results.row_map(self.model, tap, places)
        if self.of == "each":
            return self.results.each_map(self.model, tap, self._each[2][tap][places])
        return self.results.identity_map(self.model, tap, places)

    def _upload(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _means_of_others(self, two: np.ndarray) -> np.ndarray:
        """Mean map of all images but those of two identities, or of one named twice, (n, 2) -> (n, h, w).

        float32; NaN where there is none.
        """
        total, images = self._total
        people, inverse = np.unique(two, return_inverse=True)
        means, counts = self._means(people)
        sums = np.nan_to_num(means) * counts[:, None, None]
        found = np.empty((len(two), *total.shape), np.float32)
        for n, (own, other) in enumerate(inverse.reshape(-1, 2).tolist()):
            left, rest = images - counts[own], total - sums[own]
            if other != own:
                left, rest = left - counts[other], rest - sums[other]
            found[n] = (rest / left).clip(0) if left > 0 else np.nan
        return found

    @cached_property
    def _total(self) -> tuple[np.ndarray, int]:
        """Sum of the sum-normalised maps of all images, (h, w) float64, and their number."""
        total: np.ndarray | float = 0.0
        images = 0
        people = np.unique(self._identities)
        for start in range(0, len(people), ROWS):
            means, counts = self._means(people[start : start + ROWS])
            total = total + (np.nan_to_num(means) * counts[:, None, None]).sum(axis=0)
            images += int(counts.sum())
        return np.asarray(total), images

    def _means(self, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean maps of identities, (n, h, w) float64, and how many images have one, (n,)."""
        if self.name == FUSED:
            return self._fused_means(people)
        means = self.results.identity_map(self.model, self.name, people).astype(np.float64)
        return means, self._counts[people]

    def _fused_means(self, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `_means`, from the fused maps of their images."""
        found = [self._fused_mean(person) for person in people.tolist()]
        return np.stack([mean for mean, _ in found]).astype(np.float64), np.array(
            [count for _, count in found]
        )

    def _fused_mean(self, person: int) -> tuple[np.ndarray, int]:
        """Mean fused map of one identity, (size, size) float32, and its images; NaN where it has none."""
        if person not in self._remembered:
            order, identities = self._by_identity
            first, last = np.searchsorted(identities, [person, person + 1])
            total = np.zeros((self.size, self.size))
            for start in range(first, last, ROWS):
                rows = order[start : min(start + ROWS, last)]
                maps = [self._upload(self.results.row_map(self.model, tap, rows)) for tap in self.taps]
                fused = normalise(fuse(maps, self.size, [self._centres(tap) for tap in self.taps]))
                total += fused.double().sum(dim=0).cpu().numpy()
            mean = total / (last - first) if last > first else np.full_like(total, np.nan)
            if len(self._remembered) >= REMEMBERED:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[person] = mean.astype(np.float32), int(last - first)
        return self._remembered[person]

    @cached_property
    def _remembered(self) -> dict[int, tuple[np.ndarray, int]]:
        return {}

    @cached_property
    def _by_identity(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows that have a map, by identity, and those identities."""
        rows = np.flatnonzero(self._rows_usable)
        rows = rows[np.argsort(self._identities[rows], kind="stable")]
        return rows, self._identities[rows]

    @cached_property
    def view(self) -> View:
        """How the maps of `read` are compared."""
        if self.name == FUSED:
            return View(self.size, None, common_grid(self.size, self.size), framed=False)
        framed = self.aligned is not None
        cells = (self.size, self.size) if framed else self.results.map_shape(self.model, self.name)
        return View(self.size, self._centres(self.name), common_grid(*cells), framed)

    @property
    def centres(self) -> Centres | None:
        """Where the cells of the maps of `read` lie; None for a plain resize."""
        return self.view.centres

    def _centres(self, tap: str) -> Centres | None:
        if self.aligned is None and self.results.setting(self.model, "registration") != "receptive":
            return None
        factor = self.size / self.crop
        # Five points are scaled about the centre of the first pixel, crops of other kinds about its corner.
        shift = 0.0 if self.aligned in (None, "arcface") else (factor - 1) / 2
        offsets = []
        for centres in self.results.centres(self.model, tap):
            values = centres.astype(np.float64) * factor + shift
            step = values[1] - values[0] if len(values) > 1 else float(self.size)
            offsets.append((float(values[0]), float(step)))
        return offsets[0], offsets[1]

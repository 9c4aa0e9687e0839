"""Reading a run: arrays on demand, never the whole of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from leamfast.errors import RequestError
from leamfast.store.arrays import SCHEMA
from leamfast.store.occlusion import OcclusionArrays, OcclusionAxes
from leamfast.store.pair_join import read_pairs
from leamfast.store.pairs import PairTable
from leamfast.store.part import DAMAGE
from leamfast.store.results_occlusion import occluded_pairs, occlusion_arrays, occlusion_axes
from leamfast.store.run_folder import RunFolder

__all__ = ["EachMaps", "Results", "open_results"]

Rows = slice | Sequence[int] | np.ndarray

DENSE = 0.1
"""Of a block of rows: from here on the whole block is read, as HDF5 takes longer over many single rows."""
BLOCK = 512
"""Rows in such a block."""


@dataclass(frozen=True, eq=False)
class EachMaps:
    """Maps of one image against one reference, those of a run with `--references each`.

    Attributes:
        image, reference: row numbers of both, (n,) int64.
    """

    image: np.ndarray
    reference: np.ndarray


class Results:
    """A run's index, opened for reading; a context manager.

    Attributes:
        root: the result folder.
        with_pairs: whether compared pairs and occlusion can be read, and were found to be all there.
        file: the open `index.h5`, for whatever this class does not offer.
        complete: whether all shards of the run are there.
    """

    def __init__(self, root: Path, *, with_pairs: bool = True) -> None:
        self.root = root
        self.with_pairs = with_pairs
        folder = RunFolder(root)
        if not folder.index.is_file():
            raise RequestError(
                f"{root} holds no index.h5: it is no result folder, or its run has not finished"
            )
        try:
            self.file = h5py.File(folder.index, "r")
        except OSError as exc:
            raise RequestError(f"{folder.index} is not readable as HDF5: {exc}") from exc
        try:
            self._check()
        except DAMAGE as exc:
            self.file.close()
            if isinstance(exc, RequestError):
                raise
            raise RequestError(f"{folder.index} is damaged ({exc}): see `leamfast verify`") from exc

    def _check(self) -> None:
        """A virtual array reads as fill values, without an error, where its part is missing."""
        schema = self.file.attrs.get("schema")
        if schema != SCHEMA:
            raise RequestError(f"{self.root} has schema {schema!r} where {SCHEMA!r} is needed")
        self.complete = bool(self.file.attrs["complete"])
        self._check_files("part", "its results cannot be read without it")
        if self.with_pairs:
            for kind, command in (("tile", "compare"), ("occlusion_block", "occlude")):
                self._check_files(kind, f"run `leamfast {command} {self.root}`, which makes it again")

    def _check_files(self, kind: str, what_now: str) -> None:
        for name in self.file[f"{kind}/path"].asstr()[...] if kind in self.file else ():
            if not (self.root / name).is_file():
                raise RequestError(f"{self.root} lacks {name}: {what_now}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the index."""
        self.file.close()

    def __len__(self) -> int:
        return int(self.file.attrs["rows"])

    def __repr__(self) -> str:
        people, models = self.file.attrs["persons"], ", ".join(self.models)
        return f"Results({str(self.root)!r}: {len(self)} images of {people} people, models {models})"

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(self.file["model"]) if "model" in self.file else ()

    def taps(self, model: str) -> tuple[str, ...]:
        """Names of a model's taps, in the order in which a forward pass reaches them."""
        return tuple(self._model(model).attrs["taps"].split(","))

    def setting(self, model: str, name: str) -> str:
        """How a model's maps were made, such as `target` or `registration`; empty where it is not known."""
        return str(self._model(model).attrs.get(name, ""))

    def warnings(self, model: str, tap: str) -> tuple[str, ...]:
        """Why maps of a tap may point to the wrong place; empty where nothing is known against it."""
        return tuple(filter(None, str(self._tap(model, tap).attrs.get("warnings", "")).split("\n")))

    def text(self, name: str) -> np.ndarray:
        """Strings such as `image/path` or `identity/name`, an object array."""
        return self.file[name].asstr()[...]

    @property
    def identities(self) -> np.ndarray:
        """Person number of each row, (row,)."""
        return self.file["image/identity"][...]

    def embedding(self, model: str, rows: Rows = slice(None)) -> np.ndarray:
        """Embeddings (n, D), float32, not normalised."""
        return self._model(model)["embedding"][rows]

    def map(self, model: str, tap: str, rows: Rows = slice(None)) -> np.ndarray:
        """Maps as stored, with maximum 1, (n, h, w), float32; NaN where an image has none."""
        return self._tap(model, tap)["map"][rows].astype(np.float32)

    def each(self, model: str, tap: str) -> EachMaps | None:
        """What a tap's maps of single references are of; None where the run kept only one map an image."""
        layer = self._tap(model, tap)
        if "each" not in layer:
            return None
        return EachMaps(layer["each/image_row"][...], layer["each/reference_row"][...])

    def each_map(self, model: str, tap: str, numbers: np.ndarray) -> np.ndarray:
        """Maps of single references with maximum 1, (n, h, w) float32, by their numbers in `each`."""
        return _scattered(self._tap(model, tap)["each/map"], numbers)

    def each_pairs(self, model: str, name: str) -> dict[str, np.ndarray] | None:
        """Pairs of maps of single references that the run compared and did not keep, of a tap or of `fused`.

        Returns:
            Name of each array of `each_pair` -> its values; None where the run compared none.
        """
        group = self._model(model)["fused"] if name == "fused" else self._tap(model, name)
        if "each_pair" not in group:
            return None
        return {
            name: values[...]
            for name, values in group["each_pair"].items()
            if values.attrs["dims"].startswith("each_pair") and not values.is_scale
        }

    def row_map(self, model: str, tap: str, rows: np.ndarray) -> np.ndarray:
        """Maps as `map` has them, of rows in any order, with repetitions."""
        return _scattered(self._tap(model, tap)["map"], rows)

    def identity_map(self, model: str, tap: str, persons: np.ndarray) -> np.ndarray:
        """Means of the sum-normalised maps of persons, (n, h, w) float32; NaN where one has no map."""
        return _scattered(self._tap(model, tap)["identity_map"], persons)

    def map_shape(self, model: str, tap: str) -> tuple[int, int]:
        """Cells of a tap's maps, (h, w)."""
        _, height, width = self._tap(model, tap)["map"].shape
        return int(height), int(width)

    def centres(self, model: str, tap: str) -> tuple[np.ndarray, np.ndarray]:
        """Centres of the rows and of the columns of a tap's cells in input pixels, (h,) and (w,) float32."""
        layer = self._tap(model, tap)
        return layer["h"][...], layer["w"][...]

    def raw_map(self, model: str, tap: str, rows: Rows = slice(None)) -> np.ndarray:
        """Maps M with their own scale, (n, h, w), float32."""
        return self.map(model, tap, rows) * self.scale(model, tap, rows)[:, None, None]

    def map_cells(self, model: str, tap: str) -> int:
        """How many cells a tap's maps have."""
        height, width = self.map_shape(model, tap)
        return height * width

    def scale(self, model: str, tap: str, rows: Rows = slice(None)) -> np.ndarray:
        """Largest value of each map M, (n,), float32; NaN where an image has none."""
        return self._tap(model, tap)["scale"][rows]

    @property
    def parts(self) -> tuple[tuple[Path, str], ...]:
        """Files of the run's parts, and the digests of their content, in order."""
        if "part" not in self.file:
            return ()
        names, digests = (self.file[f"part/{name}"].asstr()[...] for name in ("path", "digest"))
        return tuple((self.root / name, str(digest)) for name, digest in zip(names, digests, strict=True))

    @property
    def has_pairs(self) -> bool:
        """Whether `leamfast compare` has compared the maps, and this was opened to read that."""
        return self.with_pairs and "tile" in self.file

    def pairs(self, model: str, name: str) -> list[PairTable]:
        """All compared pairs of a tap or of `fused`, one table a kind and other model.

        Raises:
            PartError: a file of pairs is damaged.
        """
        self._model(model)
        names = self.file["tile/path"].asstr()[...] if self.has_pairs else ()
        return read_pairs([self.root / path for path in names], model, name)

    @property
    def occluded(self) -> tuple[tuple[str, str], ...]:
        """(evaluated, source) of the pairs of models that `leamfast occlude` has occluded images for, sorted.

        Empty where there are none, or where this was not opened to read them.
        """
        return occluded_pairs(self.file) if self.with_pairs else ()

    def occlusion_axes(self, evaluated: str, source: str) -> OcclusionAxes:
        """What the axes of `occlusion` stand for.

        Raises:
            RequestError: images were not occluded for these models.
        """
        return occlusion_axes(self.file, self.root, self.occluded, (evaluated, source))

    def occlusion(self, evaluated: str, source: str, rows: slice = slice(None)) -> OcclusionArrays:
        """What filling the supports of a source model's maps, or of controls, did to an evaluated model.

        Raises:
            RequestError: images were not occluded for these models, or a file of it is damaged.
        """
        return occlusion_arrays(self.file, self.root, self.occluded, (evaluated, source), rows)

    @property
    def thresholds(self) -> tuple[int, ...]:
        """Percents at which supports are cut; 100 is the whole map."""
        return tuple(int(percent) for percent in self.file["threshold"][...])

    def duplicates(self, model: str) -> np.ndarray:
        """Earlier row of the same identity of which each row is a near-duplicate, or -1, (row,) int64."""
        group = self._model(model)
        if "duplicate_of" not in group:  # made before near-duplicates were looked for
            return np.full(len(self), -1, np.int64)
        return group["duplicate_of"][...]

    def input_size(self, model: str) -> int:
        """Side of a model's crops in pixels."""
        return int(self._model(model).attrs["input_size"])

    def transforms(self, model: str, rows: Rows = slice(None)) -> np.ndarray:
        """From the pixels of photos to those of a model's crops, (n, 2, 3) float64."""
        return self._crop(model)["transform"][rows].astype(np.float64)

    def points(self, rows: Rows = slice(None)) -> np.ndarray | None:
        """Five points of each face in the pixels of its photo, (n, 5, 2) float64, x before y.

        NaN where they are not known; None where the run did not keep them.
        """
        image = self.file.get("image")
        return image["points"][rows].astype(np.float64) if image and "points" in image else None

    def has_masks(self, model: str) -> bool:
        """Whether the run made region masks; an image may lack one all the same."""
        return "label" in self._crop(model)

    def labels(self, model: str, rows: Rows = slice(None)) -> np.ndarray:
        """Region masks of a model's crops, (n, size, size) uint8: indices of `region`, 255 where unknown.

        Raises:
            RequestError: the run had no region masks.
        """
        crop = self._crop(model)
        if "label" not in crop:
            raise self.no_masks()
        return crop["label"][rows]

    def parser(self, model: str) -> str:
        """What made the region masks of a model's crops; empty where the run does not say."""
        return str(self._crop(model).attrs.get("parser", ""))

    def regions(self, model: str) -> tuple[str, ...]:
        """Names of the regions that the run's parser can tell, in the order of `region`."""
        names = tuple(str(name) for name in self.text("region"))
        told = self._crop(model).attrs.get("regions")
        if told is None:
            return names
        known = set(str(told).split(","))
        return tuple(name for name in names if name in known)

    def region_share(self, model: str, tap: str) -> np.ndarray:
        """Region shares (row, threshold, region), float32, of a tap or of `fused`.

        NaN for a row without a mask or a map, and for regions that the run's parser cannot tell.

        Raises:
            RequestError: the run had no region masks.
        """
        group = self._model(model)["fused"] if tap == "fused" else self._tap(model, tap)
        if "region_share" not in group:
            raise self.no_masks()
        return group["region_share"][...]

    def no_masks(self) -> RequestError:
        """The error that says that there are no region masks, and what makes them."""
        return RequestError(
            f"{self.root} has no region shares: its images came without region masks, which "
            "`leamfast batch --parser` makes"
        )

    def _model(self, model: str) -> h5py.Group:
        if model not in self.models:
            raise RequestError(f"model {model!r} is not in {self.root}: {', '.join(self.models)} are")
        return self.file["model"][model]

    def _crop(self, model: str) -> h5py.Group:
        return self.file[f"crop/{self.input_size(model)}"]

    def _tap(self, model: str, tap: str) -> h5py.Group:
        if tap not in self.taps(model):
            raise RequestError(
                f"layer {tap!r} of {model} is not in {self.root}: {', '.join(self.taps(model))} are"
            )
        return self._model(model)["layer"][tap]


def _scattered(dataset: h5py.Dataset, places: np.ndarray) -> np.ndarray:
    """Entries of a data set in any order, (n, ...) float32."""
    wanted, inverse = np.unique(places, return_inverse=True)
    found = np.empty((len(wanted), *dataset.shape[1:]), np.float32)
    for block in np.unique(wanted // BLOCK):
        first, last = np.searchsorted(wanted, [block * BLOCK, (block + 1) * BLOCK])
        mine = wanted[first:last]
        start, stop = int(mine[0]), int(mine[-1]) + 1
        if len(mine) >= DENSE * (stop - start):
            found[first:last] = dataset[start:stop][mine - start]
        else:
            found[first:last] = dataset[mine]
    return found[inverse.reshape(-1)]


def open_results(root: str | Path, *, with_pairs: bool = True) -> Results:
    """Open a result folder for reading.

    Args:
        root: the folder.
        with_pairs: whether compared pairs and occlusion, where there are any, must all be there.

    Raises:
        RequestError: it holds no finished run.

    Example:
        >>> with open_results("out") as results:  # doctest: +SKIP
        ...     maps = results.map("demo", results.taps("demo")[0], slice(10))
    """
    return Results(Path(root), with_pairs=with_pairs)

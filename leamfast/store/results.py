"""Reading a run: arrays on demand, never the whole of it."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from leamfast.errors import RequestError
from leamfast.store.arrays import SCHEMA
from leamfast.store.part import DAMAGE
from leamfast.store.run_folder import RunFolder

__all__ = ["Results", "open_results"]

Rows = slice | Sequence[int] | np.ndarray


class Results:
    """A run's index, opened for reading; a context manager.

    Attributes:
        root: the result folder.
        file: the open `index.h5`, for whatever this class does not offer.
        complete: whether all shards of the run are there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
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
        parts = self.file["part/path"].asstr()[...] if "part" in self.file else ()
        for name in parts:
            if not (self.root / name).is_file():
                raise RequestError(f"{self.root} lacks {name}: its results cannot be read without it")

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

    def raw_map(self, model: str, tap: str, rows: Rows = slice(None)) -> np.ndarray:
        """Maps M with their own scale, (n, h, w), float32."""
        return self.map(model, tap, rows) * self._tap(model, tap)["scale"][rows][:, None, None]

    def region_share(self, model: str, tap: str) -> np.ndarray:
        """Region shares (row, threshold, region), float32, of a tap or of `fused`.

        Raises:
            RequestError: the run had no region masks.
        """
        group = self._model(model)["fused"] if tap == "fused" else self._tap(model, tap)
        if "region_share" not in group:
            raise RequestError(f"{self.root} has no region shares: its images came without region masks")
        return group["region_share"][...]

    def _model(self, model: str) -> h5py.Group:
        if model not in self.models:
            raise RequestError(f"model {model!r} is not in {self.root}: {', '.join(self.models)} are")
        return self.file["model"][model]

    def _tap(self, model: str, tap: str) -> h5py.Group:
        if tap not in self.taps(model):
            raise RequestError(
                f"layer {tap!r} of {model} is not in {self.root}: {', '.join(self.taps(model))} are"
            )
        return self._model(model)["layer"][tap]


def open_results(root: str | Path) -> Results:
    """Open a result folder for reading.

    Raises:
        RequestError: it holds no finished run.

    Example:
        >>> with open_results("out") as results:  # doctest: +SKIP
        ...     maps = results.map("demo", results.taps("demo")[0], slice(10))
    """
    return Results(Path(root))

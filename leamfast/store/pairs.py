"""Results of comparing maps two by two: one HDF5 file a tile, written whole or not at all.

A tile holds pairs of one kind of one map:

    A  same image, two references          i == j, references i_ref and j_ref
    B  M(a|b) against M(b|a)               i = a, j = b, i_ref = b, j_ref = a
    C  same identity, different images     D  different identities
    identity  maps of two identities       i and j number persons
    cross     same image, two models       the map of `other_model` is the second

Arrays along `pair`, those of values (pair, threshold, prior). NaN stands where nothing was computed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from leamfast.store.arrays import SCHEMA, THRESHOLDS, Array, digest, read_array, write_array
from leamfast.store.memory_file import memory_file
from leamfast.store.part import DAMAGE, PartError, check_seal, datasets, open_part
from leamfast.store.seal import write_sealed

__all__ = [
    "COUNTS",
    "EMD_KINDS",
    "KINDS",
    "PRIORS",
    "PairTable",
    "Tile",
    "VALUES",
    "pair_arrays",
    "read_tile",
    "tile_file",
    "tile_stem",
    "write_tile",
]

KINDS = ("A", "B", "C", "D", "identity", "cross")
PRIORS = ("kept", "removed")
EMD_KINDS = ("none", "exact", "bracket")
COUNTS = ("i", "j", "i_ref", "j_ref")
VALUES = ("bc", "emd", "emd_lower", "emd_upper")
LONGEST = 100
"""Of each half of a file's name, which may have 255 characters."""

SLACK = 1e-5
"""Of values that were rounded to float32: BC may exceed 1, and a bound the value, by so much."""


@dataclass(frozen=True, eq=False)
class PairTable:
    """Pairs of one kind of one map, of a tile or of all tiles.

    Attributes:
        model, tap: whose map; `fused` is a tap here.
        kind: one of `KINDS`.
        i, j: row numbers of the index, persons for `identity`, (n,) int64.
        i_ref, j_ref: rows of the references, -1 where there is no single one, (n,) int64.
        bc, emd: (n, threshold, prior) float32 or float64; NaN where not computed.
        emd_lower, emd_upper: certified bounds of `emd`, equal to it where it is exact.
        emd_kind: index of `EMD_KINDS`, (n, threshold, prior) uint8.
        grid: height and width on which maps were compared, (threshold, 2).
        other_model: of `cross`, whose map is the second.
        excluded: reason -> number of pairs that were left out for it.

    Raises:
        ValueError: shapes, codes or values that do not go together.
    """

    model: str
    tap: str
    kind: str
    i: np.ndarray
    j: np.ndarray
    i_ref: np.ndarray
    j_ref: np.ndarray
    bc: np.ndarray
    emd: np.ndarray
    emd_lower: np.ndarray
    emd_upper: np.ndarray
    emd_kind: np.ndarray
    grid: np.ndarray
    other_model: str = ""
    excluded: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if bool(self.other_model) != (self.kind == "cross"):
            raise ValueError(
                f"other_model must be named for pairs of kind cross and only for them, got "
                f"{self.other_model!r} for kind {self.kind}"
            )
        shape = (len(self.i), len(THRESHOLDS), len(PRIORS))
        wanted = {
            **dict.fromkeys(COUNTS, shape[:1]),
            **dict.fromkeys((*VALUES, "emd_kind"), shape),
            "grid": (len(THRESHOLDS), 2),
        }
        for name, size in wanted.items():
            if getattr(self, name).shape != size:
                raise ValueError(f"{name} must have shape {size}, got {getattr(self, name).shape}")
        self._check_values()

    def _check_values(self) -> None:
        for name, least in (("i", 0), ("j", 0), ("i_ref", -1), ("j_ref", -1)):
            if len(self) and getattr(self, name).min() < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name).min()}")
        if self.emd_kind.size and self.emd_kind.max() >= len(EMD_KINDS):
            raise ValueError(f"emd_kind must be below {len(EMD_KINDS)}, got {self.emd_kind.max()}")
        if not np.array_equal(np.isnan(self.emd), self.emd_kind == EMD_KINDS.index("none")):
            raise ValueError("emd must be NaN exactly where emd_kind says that there is none")
        if any((values < -SLACK).any() for values in (self.bc, self.emd)) or (self.bc > 1 + SLACK).any():
            raise ValueError("bc must lie in 0 to 1, and emd must not be negative")
        there = ~np.isnan(self.emd)
        low, value, high = self.emd_lower[there], self.emd[there], self.emd_upper[there]
        if not ((low <= value + SLACK) & (value <= high + SLACK)).all():
            raise ValueError("emd must lie between emd_lower and emd_upper")

    def __len__(self) -> int:
        return len(self.i)


@dataclass(frozen=True)
class Tile:
    """Which part of the pairs of one kind a file holds.

    Attributes:
        number: from 0.
        count: tiles of this model, map, kind and other model.
        run: SHA-256 of the frozen settings of the run whose maps were compared.
    """

    number: int
    count: int
    run: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise ValueError(f"tile must be one of {self.count} numbered from 0, got {self.number}")


def tile_file(folder: Path, model: str, tap: str, kind: str, other_model: str, number: int) -> Path:
    """Where a tile lies: `pairs-<model>-<tap>-<kind>-<tile>.h5`, names quoted, as taps may hold anything."""
    return folder / f"{tile_stem(model, tap)}-{_quoted(kind, other_model)}-{number:05d}.h5"


def tile_stem(model: str, tap: str) -> str:
    """How the names of a map's tiles begin."""
    return f"pairs-{_quoted(model, tap)}"


def _quoted(*names: str) -> str:
    """Names as one that is no path, and that others do not have; what is too long for a file as its hash."""
    text = "-".join(quote(name, safe="").replace("-", "%2D") for name in names if name)
    return text if len(text) <= LONGEST else sha256(text.encode()).hexdigest()


def write_tile(folder: Path, table: PairTable, tile: Tile) -> Path:
    """Build a tile in memory, then write it atomically; returns its file."""
    arrays, attributes = pair_arrays(table), _attributes(table, tile)
    path = tile_file(folder, table.model, table.tap, table.kind, table.other_model, tile.number)
    with memory_file(path.name) as file:
        for name, array in arrays.items():
            write_array(file, name, array)
        file["kind"].attrs["names"] = ",".join(KINDS)
        file["emd_kind"].attrs["names"] = ",".join(EMD_KINDS)
        file.attrs.update(schema=SCHEMA, rows=len(table), **attributes)
        file.attrs.update(digest=digest(arrays, {"/": attributes}), complete=True)
        file.flush()
        image = file.id.get_file_image()
    write_sealed(path, image)
    return path


def read_tile(path: Path) -> tuple[PairTable, Tile]:
    """A tile with all its values.

    Raises:
        PartError: it is missing, damaged, never completed, or of other thresholds.
    """
    check_seal(path)
    with open_part(path) as file:
        try:
            arrays = {name: read_array(dataset) for name, dataset in datasets(file).items()}
            table, tile = _table(arrays, file.attrs)
            wanted, rows = file.attrs["digest"], int(file.attrs["rows"])
            intact = rows == len(table) and digest(arrays, {"/": _attributes(table, tile)}) == wanted
        except DAMAGE as exc:
            raise PartError(f"{path.name} holds something that cannot be read: {exc}") from exc
    if not intact:
        raise PartError(f"{path.name} holds other values than were written: its digest differs")
    return table, tile


def pair_arrays(table: PairTable) -> dict[str, Array]:
    """The arrays of a table by name, `kind` as an index of `KINDS`."""
    over = ("pair", "threshold", "prior")
    return {
        "kind": Array(np.full(len(table), KINDS.index(table.kind), np.int8), ("pair",)),
        **{name: Array(getattr(table, name).astype(np.int64), ("pair",)) for name in COUNTS},
        **{name: Array(getattr(table, name), over) for name in VALUES},
        "emd_kind": Array(table.emd_kind.astype(np.uint8), over),
        "grid": Array(
            np.broadcast_to(table.grid.astype(np.int16), (len(table), *table.grid.shape)),
            ("pair", "threshold", "axis"),
        ),
    }


def _attributes(table: PairTable, tile: Tile) -> dict[str, Any]:
    """What a tile says of itself, covered by its digest."""
    return {
        "model": table.model,
        "tap": table.tap,
        "pair_kind": table.kind,
        "other_model": table.other_model,
        "thresholds": ",".join(map(str, THRESHOLDS)),
        "grids": ",".join(map(str, table.grid.ravel().tolist())),
        "priors": ",".join(PRIORS),
        "excluded": json.dumps(dict(sorted(table.excluded.items()))),
        "tile": tile.number,
        "tiles": tile.count,
        "run": tile.run,
    }


def _table(arrays: Mapping[str, Array], attributes: Mapping[str, Any]) -> tuple[PairTable, Tile]:
    thresholds = str(attributes["thresholds"])
    if thresholds != ",".join(map(str, THRESHOLDS)):
        raise ValueError(f"it has thresholds {thresholds} where {THRESHOLDS} are needed")
    values = {name: arrays[name].values for name in (*COUNTS, *VALUES, "emd_kind")}
    grid = np.array([int(cells) for cells in str(attributes["grids"]).split(",")]).reshape(-1, 2)
    table = PairTable(
        model=str(attributes["model"]),
        tap=str(attributes["tap"]),
        kind=str(attributes["pair_kind"]),
        other_model=str(attributes["other_model"]),
        excluded=json.loads(attributes["excluded"]),
        grid=grid,
        **values,
    )
    if (arrays["kind"].values != KINDS.index(table.kind)).any():
        raise ValueError(f"it has pairs of another kind than {table.kind}")
    return table, Tile(int(attributes["tile"]), int(attributes["tiles"]), str(attributes["run"]))

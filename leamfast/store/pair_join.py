"""The tiles of compared maps put together again: one table a kind of pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leamfast.store.pairs import COUNTS, KINDS, VALUES, PairTable, Tile, read_tile, tile_file, tile_stem
from leamfast.store.part import DAMAGE, PartError, open_part

__all__ = ["TileName", "missing_tiles", "read_pairs", "tile_files", "tile_name"]


@dataclass(frozen=True)
class TileName:
    """What a tile says of itself, without its pairs."""

    model: str
    tap: str
    kind: str
    other_model: str
    run: str
    number: int
    count: int
    rows: int
    digest: str


def read_pairs(files: Sequence[Path], model: str, tap: str, run: str = "") -> list[PairTable]:
    """All pairs of a map, one table for each kind and other model, in the order of `KINDS`.

    Args:
        files: of tiles, those of other maps among them.
        model, tap: whose map.
        run: what the tiles must have been made from; anything where it is empty.

    Raises:
        PartError: a tile is missing or damaged, or does not go with the others.
    """
    tiles: dict[tuple[str, ...], list[tuple[PairTable, Tile, Path]]] = {}
    for path in files:
        if not path.name.startswith(f"{tile_stem(model, tap)}-"):
            continue
        name = tile_name(path)
        if (name.model, name.tap) == (model, tap):
            tiles.setdefault((name.kind, name.other_model), []).append((*read_tile(path), path))
    found = [_joined(group, run) for group in tiles.values()]
    return sorted(found, key=lambda table: (KINDS.index(table.kind), table.other_model))


def tile_files(folder: Path) -> list[Path]:
    """Files of tiles, sorted by name; none where there is no folder."""
    return sorted(folder.glob("pairs-*.h5"))


def tile_name(path: Path) -> TileName:
    """What a tile says of itself.

    Raises:
        PartError: it is no tile, or was never completed.
    """
    with open_part(path) as file:
        try:
            tile = TileName(
                model=str(file.attrs["model"]),
                tap=str(file.attrs["tap"]),
                kind=str(file.attrs["pair_kind"]),
                other_model=str(file.attrs["other_model"]),
                run=str(file.attrs["run"]),
                number=int(file.attrs["tile"]),
                count=int(file.attrs["tiles"]),
                rows=int(file.attrs["rows"]),
                digest=str(file.attrs["digest"]),
            )
        except DAMAGE as exc:
            raise PartError(f"{path.name} is no tile of pairs: {exc}") from exc
    wanted = tile_file(path.parent, tile.model, tile.tap, tile.kind, tile.other_model, tile.number)
    if path.name != wanted.name:
        raise PartError(f"{path.name} is a copy of {wanted.name}, or was renamed: remove it")
    return tile


def missing_tiles(tiles: Sequence[TileName]) -> int:
    """How many tiles of one kind are not there."""
    count = tiles[0].count
    return count - len({tile.number for tile in tiles if 0 <= tile.number < count})


def _joined(tiles: list[tuple[PairTable, Tile, Path]], run: str) -> PairTable:
    """One table of the tiles of one kind, in their order."""
    tiles = sorted(tiles, key=lambda entry: entry[1].number)
    first, about, path = tiles[0]
    for table, tile, own in tiles:
        if tile.run != (run or about.run):
            raise PartError(f"{own.name} compares maps of another run: run `leamfast compare` again")
        if tile.count != about.count:
            raise PartError(f"{own.name} is of {tile.count} tiles where {path.name} is of {about.count}")
        if not np.array_equal(table.grid, first.grid):
            raise PartError(f"{own.name} was compared on another grid than {path.name}")
    numbers = {tile.number for _, tile, _ in tiles}
    if len(numbers) < len(tiles):
        raise PartError(f"{path.name} and others hold the same tile")
    if len(numbers) < about.count:  # each is below it
        whose = f"pairs {first.kind} of {first.tap} of {first.model}"
        raise PartError(f"{whose}: {about.count - len(numbers)} of {about.count} tiles are missing")
    excluded: dict[str, int] = {}
    for table, _, _ in tiles:
        for reason, number in table.excluded.items():
            excluded[reason] = excluded.get(reason, 0) + int(number)
    joined = {
        name: np.concatenate([getattr(table, name) for table, _, _ in tiles])
        for name in (*COUNTS, *VALUES, "emd_kind")
    }
    return PairTable(
        first.model, first.tap, first.kind, **joined, grid=first.grid, other_model=first.other_model,
        excluded=excluded,
    )  # fmt: skip

"""Are the compared pairs of a run whole, and of the maps that it has now? Every problem is named."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from leamfast.store.pair_index import pairs_sha256, parts_sha256
from leamfast.store.pair_join import TileName, missing_tiles, tile_files, tile_name
from leamfast.store.pairs import read_tile
from leamfast.store.part import PartError
from leamfast.store.run_folder import RunFolder

__all__ = ["pair_problems"]


def pair_problems(folder: RunFolder, digests: Iterable[str]) -> Iterator[str]:
    """One sentence a problem of the tiles of pairs; none where there are no pairs.

    Args:
        folder: the run.
        digests: of its parts, in order.
    """
    files = tile_files(folder.pairs)
    run = pairs_sha256(folder, parts_sha256(digests))
    again = f"run `leamfast compare {folder.root}` again"
    if run is None:
        if files or folder.compare_settings.exists():
            yield f"pairs were compared of other maps than the run has now: {again} with --overwrite"
        return
    kinds: dict[tuple[str, ...], list[TileName]] = {}
    for path in files:
        problem, tile = _problem(path, run)
        if problem:
            yield f"{problem}: {again}"
        if tile is not None:
            kinds.setdefault((tile.model, tile.tap, tile.kind, tile.other_model), []).append(tile)
    for (model, tap, kind, other), tiles in sorted(kinds.items()):
        if missing := missing_tiles(tiles):
            whose = f"pairs {kind} of {tap} of {model}" + (f" and {other}" if other else "")
            yield f"{whose}: {missing} of {tiles[0].count} tiles are missing: {again}"


def _problem(path: Path, run: str) -> tuple[str, TileName | None]:
    """What is wrong with a tile, and what it says of itself where that can be read."""
    try:
        tile = tile_name(path)
    except PartError as exc:
        return str(exc), None
    try:
        read_tile(path)
    except PartError as exc:
        return str(exc), tile
    return (f"{path.name} was compared with other settings" if tile.run != run else ""), tile

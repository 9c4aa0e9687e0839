"""The compared pairs of a run in its index: `/model/<name>/layer/<tap>/pair`, `/model/<name>/fused/pair`."""

import hashlib
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

from leamfast.errors import RequestError
from leamfast.store.arrays import Array, write_array
from leamfast.store.pair_join import TileName, missing_tiles, tile_files, tile_name
from leamfast.store.pairs import EMD_KINDS, KINDS, PRIORS
from leamfast.store.part import PartError, datasets, open_part
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import read_settings, settings_sha256
from leamfast.store.virtual import Piece, attach_scales, write_virtual

__all__ = ["join_pairs", "parts_sha256", "pairs_sha256"]


def parts_sha256(digests: Iterable[str]) -> str:
    """Hex SHA-256 of the digests of a run's parts, in their order: what its pairs were made from."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def pairs_sha256(folder: RunFolder, parts: str) -> str | None:
    """SHA-256 of the settings that a run's pairs were compared with.

    Args:
        folder: the run.
        parts: `parts_sha256` of its parts as they are now.

    Returns:
        None where there are no pairs, or pairs of other parts.
    """
    if not folder.compare_settings.is_file():
        return None
    try:
        frozen = read_settings(folder.compare_settings).get("frozen")
    except RequestError:
        return None
    if not isinstance(frozen, dict) or frozen.get("parts") != parts:
        return None
    return settings_sha256(frozen)


def join_pairs(index: h5py.File, folder: RunFolder, parts: str) -> None:
    """Lay the arrays of all tiles into an index.

    Kinds of which a tile is missing or damaged, or was compared with other settings, are left out: `verify`
    names them.

    Args:
        index: the index, with its models.
        folder: the run.
        parts: as for `pairs_sha256`.
    """
    run = pairs_sha256(folder, parts)
    if run is None:
        return
    kinds: dict[tuple[str, str, int, str], list[tuple[TileName, Path]]] = {}
    for path in tile_files(folder.pairs):
        try:
            tile = tile_name(path)
        except PartError:
            continue
        if tile.run == run and tile.kind in KINDS and _group(tile) in index:
            key = tile.model, tile.tap, KINDS.index(tile.kind), tile.other_model
            kinds.setdefault(key, []).append((tile, path))
    whole = [kinds[key] for key in sorted(kinds) if not missing_tiles([tile for tile, _ in kinds[key]])]
    tiles = [entry for kind in whole for entry in sorted(kind, key=lambda entry: entry[0].number)]
    if not tiles:
        return
    for name, values in (("prior", PRIORS), ("axis", ("y", "x"))):
        write_array(index, name, Array(np.array(values, dtype=object), (name,))).make_scale(name)
    for group, mine in groupby(tiles, key=lambda entry: _group(entry[0])):
        _join(index, f"{group}/pair", list(mine), folder.root)
    _list_tiles(index, tiles, folder.root)


def _group(tile: TileName) -> str:
    return f"model/{tile.model}/fused" if tile.tap == "fused" else f"model/{tile.model}/layer/{tile.tap}"


def _join(index: h5py.File, group: str, tiles: list[tuple[TileName, Path]], root: Path) -> None:
    pieces: dict[str, list[Piece]] = {}
    layout: dict[str, tuple[tuple[str, ...], np.dtype]] = {}
    for _, path in tiles:
        with open_part(path) as file:
            for name, dataset in datasets(file).items():
                source = path.relative_to(root).as_posix()
                pieces.setdefault(name, []).append((source, name, dataset.shape))
                layout[name] = tuple(dataset.attrs["dims"].split(",")), dataset.dtype
    for name, (dims, dtype) in layout.items():
        dataset = write_virtual(index, f"{group}/{name}", dims, dtype, pieces[name])
        attach_scales(index, f"{group}/{name}", dataset, dims)
    names = sorted({tile.other_model for tile, _ in tiles} - {""})
    others = [names.index(tile.other_model) if tile.other_model else -1 for tile, _ in tiles]
    values = np.repeat(np.array(others, np.int16), [tile.rows for tile, _ in tiles])
    other = write_array(index, f"{group}/other_model", Array(values, ("pair",)))
    attach_scales(index, f"{group}/other_model", other, ("pair",))
    for name, words in (("other_model", names), ("kind", KINDS), ("emd_kind", EMD_KINDS)):
        index[f"{group}/{name}"].attrs["names"] = ",".join(words)


def _list_tiles(index: h5py.File, tiles: list[tuple[TileName, Path]], root: Path) -> None:
    columns = {
        "path": np.array([path.relative_to(root).as_posix() for _, path in tiles], dtype=object),
        "rows": np.array([tile.rows for tile, _ in tiles]),
        "digest": np.array([tile.digest for tile, _ in tiles], dtype=object),
    }
    for name, values in columns.items():
        dataset = write_array(index, f"tile/{name}", Array(values, ("tile",)))
        attach_scales(index, f"tile/{name}", dataset, ("tile",))

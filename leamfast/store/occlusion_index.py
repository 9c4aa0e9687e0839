"""The occlusion of a run in its index: `/model/<evaluated>/occlusion/<source>`, virtual over all blocks."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from leamfast.errors import RequestError
from leamfast.store.arrays import Array, write_array
from leamfast.store.occlusion import DIMS, OcclusionAxes, array_shape
from leamfast.store.occlusion_block import (
    BlockName,
    block_file,
    block_files,
    block_name,
    coordinates,
    missing_blocks,
    occlusion_group,
    read_axes,
    read_left_out,
)
from leamfast.store.part import DAMAGE, PartError, open_part
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import read_settings, settings_sha256
from leamfast.store.virtual import attach_scales, write_virtual

__all__ = ["BLOCKS", "join_occlusion", "occlusion_sha256", "what_is_wrong"]

BLOCKS = "occlusion_block"
"""The group of the index that lists the blocks."""

_Arrays = dict[str, tuple[tuple[int, ...], np.dtype]]
"""Name -> shape of one row, and type."""


def occlusion_sha256(folder: RunFolder, parts: str) -> str | None:
    """SHA-256 of the settings that a run's images were occluded with.

    Args:
        folder: the run.
        parts: `parts_sha256` of its parts as they are now.

    Returns:
        None where nothing was occluded, or images of other parts were.
    """
    if not folder.occlude_settings.is_file():
        return None
    try:
        frozen = read_settings(folder.occlude_settings).get("frozen")
    except RequestError:
        return None
    if not isinstance(frozen, dict) or frozen.get("parts") != parts:
        return None
    return settings_sha256(frozen)


def what_is_wrong(blocks: Sequence[BlockName], rows: int) -> str:
    """Why blocks of one pass do not make the whole of it; empty where they do, and where there are none.

    Args:
        blocks: what they say of themselves, in any order.
        rows: how many the run has.
    """
    blocks = sorted(blocks, key=lambda block: block.number)
    names = [block_file(Path(), block.number).name for block in blocks]
    for name, block in zip(names, blocks, strict=True):
        if block.count != blocks[0].count:
            return f"{name} is of {block.count} blocks where {names[0]} is of {blocks[0].count}"
        if block.layout != blocks[0].layout:
            return f"{name} has other models, axes or arrays than {names[0]}"
    if missing := missing_blocks(blocks):
        name = block_file(Path(), missing[0]).name
        there = f"{len(missing)} of {blocks[0].count}"
        return f"{there} blocks of occlusion are missing, beginning with {name}"
    end = 0
    for name, block in zip(names, blocks, strict=True):
        if block.first != end:
            return f"{name} begins at row {block.first} where row {end} is next"
        end += block.rows
    return f"blocks of occlusion have {end} rows where the run has {rows}" if blocks and end != rows else ""


def join_occlusion(index: h5py.File, folder: RunFolder, parts: str) -> dict[int, str]:
    """Lay the arrays of all blocks into an index.

    All is left out where a block is missing or damaged, or of other settings or models: `verify` names it.

    Args:
        index: the index, with its rows and models.
        folder: the run.
        parts: as for `occlusion_sha256`.

    Returns:
        Row number -> why its image could not be occluded.
    """
    run = occlusion_sha256(folder, parts)
    if run is None:
        return {}
    blocks = []
    for path in block_files(folder.occlusion):
        try:
            block = block_name(path)
        except PartError:
            continue
        if block.run == run:
            blocks.append(block)
    blocks.sort(key=lambda block: block.number)
    if not blocks or what_is_wrong(blocks, len(index["row"])):
        return {}
    if not all(f"model/{name}" in index for pair in blocks[0].groups for name in pair):
        return {}
    paths = [block_file(folder.occlusion, block.number) for block in blocks]
    try:
        layouts = {pair: _layout(paths[0], *pair, blocks[0].rows) for pair in blocks[0].groups}
        left_out = {row: why for path in paths for row, why in read_left_out(path).items()}
    except DAMAGE:
        return {}
    names = [path.relative_to(folder.root).as_posix() for path in paths]
    for pair, (axes, arrays) in layouts.items():
        group = occlusion_group(*pair)
        for dim, array in coordinates(axes).items():
            write_array(index, f"{group}/{dim}", array).make_scale(dim)
        for name, (inner, dtype) in arrays.items():
            place = f"{group}/{name}"
            pieces = [(file, place, (block.rows, *inner)) for file, block in zip(names, blocks, strict=True)]
            attach_scales(index, place, write_virtual(index, place, DIMS[name], dtype, pieces), DIMS[name])
    _list_blocks(index, blocks, names)
    return left_out


def _layout(path: Path, evaluated: str, source: str, rows: int) -> tuple[OcclusionAxes, _Arrays]:
    """Axes and arrays of a pair of models, which are those of the first block in all others."""
    with open_part(path) as file:
        group = file[occlusion_group(evaluated, source)]
        axes = read_axes(group)
        arrays = {name: (group[name].shape[1:], group[name].dtype) for name in DIMS if name in group}
        for name in arrays:
            if group[name].shape != array_shape(axes, name, rows):
                raise PartError(f"{path.name}: {name} has another shape than its axes")
    return axes, arrays


def _list_blocks(index: h5py.File, blocks: Sequence[BlockName], paths: Sequence[str]) -> None:
    columns = {
        "path": np.array(paths, dtype=object),
        "rows": np.array([block.rows for block in blocks]),
        "digest": np.array([block.digest for block in blocks], dtype=object),
    }
    for name, values in columns.items():
        dataset = write_array(index, f"{BLOCKS}/{name}", Array(values, (BLOCKS,)))
        attach_scales(index, f"{BLOCKS}/{name}", dataset, (BLOCKS,))

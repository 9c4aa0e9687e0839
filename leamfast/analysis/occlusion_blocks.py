"""Stored drops, read a block of rows at a time, once for all tables that are made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from leamfast.store.occlusion import OcclusionArrays, OcclusionAxes
from leamfast.store.results import Results

__all__ = ["Block", "Reduction", "add_by", "axes_of_maps", "reduce_blocks"]

ROWS_AT_ONCE = 4096

BLOCK_BYTES = 2**26
"""Of the stored values of a block; sums are made of a few copies in numbers of eight bytes."""


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows of one evaluated and one source model.

    Attributes:
        rows: which rows of the index, n of them.
        weight: references of each row, (n,) float64: as many (image, reference) pairs.
        drop: mean over seeds, (n, map, percent, control, fill) float64; NaN where any seed has none, and in
            rows without a reference.
        arrays: as stored, of the same maps.
    """

    rows: slice
    weight: np.ndarray
    drop: np.ndarray
    arrays: OcclusionArrays


class Reduction(Protocol):
    """Something that blocks are added to."""

    def add(self, block: Block) -> None:
        """Add the rows of a block."""


def axes_of_maps(axes: OcclusionAxes, maps: slice) -> OcclusionAxes:
    """The axes with some of the maps alone."""
    return replace(axes, maps=axes.maps[maps])


def reduce_blocks(
    results: Results, evaluated: str, source: str, maps: slice, reductions: Sequence[Reduction]
) -> None:
    """Read all rows once, a block at a time, and add each block to every reduction.

    Args:
        results: the run.
        evaluated: the model whose embeddings changed.
        source: the model whose maps were occluded.
        maps: which of them.
        reductions: what to add to.
    """
    axes = results.occlusion_axes(evaluated, source)
    columns = len(axes.maps) * len(axes.controls) * len(axes.fills)
    row = 4 * columns * (len(axes.percents) * len(axes.seeds) + 2 * len(axes.steps))
    step = max(1, min(ROWS_AT_ONCE, BLOCK_BYTES // max(1, row)))
    for start in range(0, len(results), step):
        rows = slice(start, min(start + step, len(results)))
        block = _block(rows, _of_maps(results.occlusion(evaluated, source, rows), maps))
        for reduction in reductions:
            reduction.add(block)


def _of_maps(arrays: OcclusionArrays, maps: slice) -> OcclusionArrays:
    def cut(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[:, maps]

    return replace(
        arrays,
        drop=arrays.drop[:, maps],
        support_size=arrays.support_size[:, maps],
        psnr=cut(arrays.psnr),
        ssim=cut(arrays.ssim),
        deletion=cut(arrays.deletion),
        insertion=cut(arrays.insertion),
    )


def _block(rows: slice, arrays: OcclusionArrays) -> Block:
    weight = arrays.references.astype(np.float64).clip(min=0)
    drop = arrays.drop.mean(axis=-1, dtype=np.float64)
    drop[weight == 0] = np.nan
    return Block(rows, weight, drop, arrays)


def add_by(total: np.ndarray, cells: np.ndarray, values: np.ndarray) -> None:
    """Add values (n, ...) to those rows of `total` (cell, ...) that `cells` (n,) names, in place."""
    if not len(cells):
        return
    if (np.diff(cells) < 0).any():
        order = np.argsort(cells, kind="stable")
        cells, values = cells[order], values[order]
    mine, first = np.unique(cells, return_index=True)
    total[mine] += np.add.reduceat(values, first, axis=0)

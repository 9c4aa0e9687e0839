"""Reading what occlusion did from an open index: see `Results.occlusion`."""

from collections.abc import Sequence
from pathlib import Path

import h5py

from leamfast.errors import RequestError
from leamfast.store.occlusion import DIMS, OcclusionArrays, OcclusionAxes
from leamfast.store.occlusion_block import Pair, occlusion_group, read_axes
from leamfast.store.occlusion_index import BLOCKS

__all__ = ["occluded_pairs", "occlusion_arrays", "occlusion_axes"]


def occluded_pairs(index: h5py.File) -> tuple[Pair, ...]:
    """(evaluated, source) of every pair of models in the index, sorted."""
    if BLOCKS not in index:
        return ()
    return tuple(
        (evaluated, source)
        for evaluated, group in index["model"].items()
        if "occlusion" in group
        for source in group["occlusion"]
    )


def occlusion_axes(index: h5py.File, root: Path, pairs: Sequence[Pair], wanted: Pair) -> OcclusionAxes:
    """Axes of one of the pairs of models that can be read; a RequestError where it is none of them."""
    return read_axes(_group(index, root, pairs, wanted))


def occlusion_arrays(
    index: h5py.File, root: Path, pairs: Sequence[Pair], wanted: Pair, rows: slice
) -> OcclusionArrays:
    """Arrays of one of these pairs of models; a RequestError too where a block cannot be opened."""
    group = _group(index, root, pairs, wanted)
    again = f"run `leamfast occlude {root}`, which makes it again"
    try:
        arrays = OcclusionArrays(**{name: group[name][rows] for name in DIMS if name in group})
    except OSError as exc:
        raise RequestError(f"{root} holds a block of occlusion that cannot be read ({exc}): {again}") from exc
    if (arrays.references < 0).any():  # what HDF5 reads from a file that it cannot open
        raise RequestError(f"{root} holds a block of occlusion that cannot be read: {again}")
    return arrays


def _group(index: h5py.File, root: Path, pairs: Sequence[Pair], wanted: Pair) -> h5py.Group:
    if not pairs:
        raise RequestError(
            f"{root} holds no occlusion of its images as they are now: run `leamfast occlude {root}`"
        )
    if wanted not in pairs:
        there = ", ".join(f"{evaluated} by maps of {source}" for evaluated, source in pairs)
        raise RequestError(
            f"occlusion of {wanted[0]} by maps of {wanted[1]} is not in {root}: that of {there} is"
        )
    return index[occlusion_group(*wanted)]

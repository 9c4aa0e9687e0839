"""HDF5 files that are built in memory, to be written whole."""

import h5py

__all__ = ["memory_file"]

GROWTH = 1 << 20
"""Bytes by which such a file grows: at HDF5's 64 KiB, copying what is there takes longer than all else."""


def memory_file(name: str) -> h5py.File:
    """An empty file that no disk sees; `id.get_file_image()` gives its bytes.

    Args:
        name: what errors call it.
    """
    return h5py.File(name, "w", driver="core", backing_store=False, block_size=GROWTH)

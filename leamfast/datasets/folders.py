"""Folders of images: one folder an identity."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from leamfast.datasets.decoding import IMAGE_SUFFIXES
from leamfast.datasets.entry import Entry
from leamfast.datasets.manifest import Manifest, grouped
from leamfast.errors import RequestError

__all__ = ["listing", "names_in", "read_folders"]


def read_folders(folder: Path) -> Manifest:
    """List the images of a folder of identity folders.

    Images directly in the folder form one identity, named after it; those anywhere below an identity folder
    belong to it; names that start with a dot are passed over.

    Args:
        folder: the folder; links to folders in it are followed.

    Raises:
        RequestError: it is no folder, holds no image, names an identity twice, has a name that is not UTF-8,
            or a link to a folder above itself.
    """
    if not folder.is_dir():
        raise RequestError(f"DATA must be a folder of identity folders, got the file {folder}")
    own_name = folder.resolve().name
    entries: list[Entry] = []
    ignored = 0
    loose = False
    for name, is_folder in listing(folder):
        files = _files_below(folder, name) if is_folder else iter([name])
        for file in files:
            if os.path.splitext(file)[1].lower() not in IMAGE_SUFFIXES:
                ignored += 1
                continue
            loose = loose or not is_folder
            entries.append(Entry(file, name if is_folder else own_name))
    if not entries:
        raise RequestError(
            f"DATA must hold images ({', '.join(sorted(IMAGE_SUFFIXES))}), got the folder {folder} with "
            "none: give a folder with one folder of images per identity"
        )
    if loose and any(entry.identity == own_name and "/" in entry.path for entry in entries):
        raise RequestError(
            f"DATA must name each identity once, got {folder} with images of its own, which take the name "
            f"{own_name!r}, beside a folder of that name: rename one of the two"
        )
    return Manifest(folder, grouped(entries), ignored=ignored)


def names_in(folder: str) -> frozenset[str]:
    """The names in a folder that a list speaks of; none where there is no such folder, or cannot be one."""
    try:
        return frozenset(os.listdir(folder))
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return frozenset()
        raise


def listing(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder and whether they are folders, in natural order, without hidden ones."""
    with os.scandir(folder) as items:
        names = [(item.name, _is_folder(item)) for item in items if not item.name.startswith(".")]
    return sorted(names, key=lambda item: _natural_key(item[0]))


def _files_below(root: Path, top: str) -> Iterator[str]:
    """Files at any depth of a folder in the root, as POSIX paths from there; links to folders are followed.

    Folders are kept on a stack of their own: Python's ends where a path may still go on.
    """
    levels = [(top, _inode(root / top), iter(listing(root / top)))]
    while levels:
        prefix, _, items = levels[-1]
        for name, is_folder in items:
            path = f"{prefix}/{name}"
            if not is_folder:
                yield path
                continue
            here = _inode(root / path)
            if any(here == inode for _, inode, _ in levels):
                raise RequestError(
                    f"DATA must be a tree of folders, got {root / path}, a link to a folder above it: "
                    "remove the link"
                )
            levels.append((path, here, iter(listing(root / path))))
            break
        else:
            levels.pop()


def _inode(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(item: os.DirEntry[str]) -> bool:
    """Whether a folder, or a link to one; a link to itself is a file that fails when it is read."""
    try:
        return item.is_dir()
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            return False
        raise


def _natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts img2 before img10, the same on every machine."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if part.isdecimal() else part for part in parts], name

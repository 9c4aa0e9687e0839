"""The list of IMDb-Face: `name,index,image,rect,height width,url`, a row a face, beside its pictures.

`rect` is the face in the picture as "x1 y1 x2 y2" (right and bottom exclusive), `height width` the size of
the picture. The picture `image` is looked for in the folder `name` beside the list, beside the list itself,
in `images/` and in `images/name/`. Nothing is downloaded: `url` is kept as metadata, as `index` is.

Reference: Wang et al., The Devil of Face Recognition is in the Noise, ECCV 2018.
"""

import os
import re
from collections import Counter
from pathlib import Path

from leamfast.datasets.entry import Entry, Rect
from leamfast.datasets.folders import names_in
from leamfast.datasets.manifest import Manifest, grouped
from leamfast.datasets.rows import broken, csv_rows
from leamfast.datasets.tables import leaves
from leamfast.errors import RequestError

__all__ = ["is_imdbface", "read_imdbface"]

HEADER = ["name", "index", "image", "rect", "height width", "url"]
COLUMNS = ("index", "url")
LIST = "IMDb-Face.csv"
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,9}")

MISSING = "picture not on disk"
OUTSIDE = "picture outside of the list's folder"
NO_RECT = "rect is not four whole numbers"
NO_SIZE = "height width is not two whole numbers"
BAD_RECT = "rect is empty or reaches beyond height and width"
REPEATED = "face listed before"


def is_imdbface(path: Path) -> bool:
    """Whether a path is a CSV file with IMDb-Face's header, or a folder with one called `IMDb-Face.csv`."""
    file = path / LIST if path.is_dir() else path
    if file.suffix.lower() != ".csv" or not file.is_file():
        return False
    with file.open("rb") as stream:
        line = stream.readline(200).decode("utf-8-sig", errors="replace")
    return [cell.strip().strip('"') for cell in line.split(",")] == HEADER


def read_imdbface(path: Path) -> Manifest:
    """List the faces whose pictures are on disk; the identity is the name.

    Args:
        path: the CSV file, or a folder that holds it as `IMDb-Face.csv`.

    Returns:
        Entries with a `rect`; `left_out` counts the rows without a picture, with a rect that cannot be
        taken, or whose face another row has listed.

    Raises:
        RequestError: the file is missing or not such a list, a row has other cells than the header, an empty
            name or image, or no face is left.
    """
    file = path / LIST if path.is_dir() else path
    if not file.is_file():
        raise RequestError(f"DATA must be IMDb-Face's CSV file or a folder with {LIST}, got {path}")
    rows = csv_rows(file)
    where, header = next(rows, ("line 1", []))
    if [name.strip() for name in header] != HEADER:
        raise broken(file, where, f"must have the header {','.join(HEADER)}, got {','.join(header)[:80]!r}")
    entries: dict[tuple[str, Rect], Entry] = {}
    left_out: Counter[str] = Counter()
    listings: dict[str, frozenset[str]] = {}
    for where, row in rows:
        if len(row) != len(HEADER):
            raise broken(file, where, f"has {len(row)} cells where the header names {len(HEADER)} columns")
        cells = dict(zip(HEADER, (cell.strip() for cell in row), strict=True))
        for column, cell in cells.items():
            if "\0" in cell or (not cell and column in ("name", "image")):
                what = "it cannot be a file's" if column in ("name", "image") else "it holds a NUL byte"
                raise broken(file, where, f"has the {column} {cell!r}: {what}")
        try:
            place = _find(file.parent, cells["name"], cells["image"], listings)
            rect = _rect(cells["rect"], cells["height width"])
            if (place, rect) in entries:
                raise _LeftOutError(REPEATED)
        except _LeftOutError as exc:
            left_out[str(exc)] += 1
            continue
        metadata = {column: cells[column] for column in COLUMNS}
        entries[place, rect] = Entry(place, cells["name"], None, metadata, rect=rect)
    if not entries:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in left_out.items())
        raise RequestError(
            f"DATA must list faces whose pictures are on disk, got {file} with none "
            f"({reasons or 'no rows'}): put them beside it, in folders of the people's names or images/"
        )
    return Manifest(file.parent, grouped(tuple(entries.values())), COLUMNS, left_out=dict(left_out))


class _LeftOutError(ValueError):
    """A row gives no face; the message is the reason."""


def _find(root: Path, name: str, image: str, listings: dict[str, frozenset[str]]) -> str:
    """The path of a picture, relative to the root; each folder is listed once."""
    candidates = (f"{name}/{image}", image, f"images/{image}", f"images/{name}/{image}")
    inside = [os.path.normpath(p) for p in candidates if not os.path.isabs(p) and not leaves(p)]
    for place in inside:
        folder, _, file = place.rpartition("/")
        if folder not in listings:
            listings[folder] = names_in(f"{root}/{folder}")
        if file in listings[folder]:
            return place
    raise _LeftOutError(MISSING if len(inside) == len(candidates) else OUTSIDE)


def _rect(cell: str, size: str) -> Rect:
    numbers, sides = _whole_numbers(cell), _whole_numbers(size)
    if len(numbers) != 4:
        raise _LeftOutError(NO_RECT)
    if len(sides) != 2:
        raise _LeftOutError(NO_SIZE)
    left, top, right, bottom = numbers
    height, width = sides
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise _LeftOutError(BAD_RECT)
    return left, top, right, bottom


def _whole_numbers(cell: str) -> list[int]:
    """The numbers of a cell; none where one of its words is no whole number."""
    words = cell.split()
    return [int(word) for word in words] if all(map(WHOLE_NUMBER.fullmatch, words)) else []

"""Crops that were made before, kept in the user's cache: a picture known here is not even decoded.

A value is one crop of one size with its transform, the points of the face in the picture and, where a parser
told its regions, their labels. Its key is a hash of the picture's bytes and the part taken of it, of all that
its detection depends on, of the alignment, the size, the parser, and of what a value holds.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leamfast.faces.cache import Picture, value_key
from leamfast.faces.value_cache import ValueCache, cache_folder

__all__ = ["Cropped", "CropCache", "Made", "crop_cache"]

LIMIT = 1_000_000_000
"""Bytes of crops.sqlite3 above which the crops that were not used for longest are deleted."""

_HEAD = struct.Struct("<II20s?6d10f")
_LAYOUT = "with points"
"""What a value holds: a part of every key, so that values of another layout are not found."""


@dataclass(frozen=True)
class Made:
    """A crop: pixels (size, size, 3) and labels (size, size), uint8, or None; transform (2, 3), float64."""

    pixels: np.ndarray
    transform: np.ndarray
    label: np.ndarray | None


@dataclass(frozen=True)
class Cropped:
    """What becomes of a picture.

    Attributes:
        shape: its height and width.
        fingerprint: SHA-1 of its pixels, hexadecimal.
        points: the five points of its face, (5, 2) float32 in its pixels, or NaN.
        crops: by size.
    """

    shape: tuple[int, int]
    fingerprint: str
    points: np.ndarray
    crops: Mapping[int, Made]


class CropCache:
    """Crops of pictures.

    Args:
        depends: what crops depend on besides the picture and the size, as words.
        file: the file; its folder is made.
        note: takes a sentence when the cache cannot be used.
    """

    def __init__(self, depends: Iterable[str], file: Path, note: Callable[[str], None] | None = None) -> None:
        self._depends = tuple(depends)
        self._values = ValueCache(file, LIMIT, note)

    def get(self, picture: Picture, sizes: Iterable[int]) -> Cropped | None:
        """Crops of a picture; None unless it has been kept for all of the sizes."""
        keys = {size: self._key(picture, size) for size in sizes}
        values = self._values.get(list(keys.values()))
        found = [_unpack(size, values[key]) for size, key in keys.items() if key in values]
        if not found or None in found or len(found) < len(keys):
            return None
        one = found[0]
        assert one is not None
        crops = {size: made for kept in found if kept is not None for size, made in kept.crops.items()}
        return Cropped(one.shape, one.fingerprint, one.points, crops)

    def put(self, pictures: Sequence[tuple[Picture, Cropped]]) -> None:
        """Keep crops of pictures."""
        self._values.put(
            [
                (self._key(picture, size), _pack(cropped, made))
                for picture, cropped in pictures
                for size, made in cropped.crops.items()
            ]
        )

    def close(self) -> None:
        """Close the file; it is opened again where it is used again."""
        self._values.close()

    def _key(self, picture: Picture, size: int) -> bytes:
        return value_key(_LAYOUT, *self._depends, *map(str, picture), str(size))


def crop_cache(depends: Iterable[str]) -> CropCache:
    """The user's cache of crops that depend on some words."""
    return CropCache(depends, cache_folder() / "crops.sqlite3")


def _pack(cropped: Cropped, made: Made) -> bytes:
    numbers = made.transform.ravel().tolist() + cropped.points.ravel().tolist()
    head = _HEAD.pack(*cropped.shape, bytes.fromhex(cropped.fingerprint), made.label is not None, *numbers)
    return head + made.pixels.tobytes() + (b"" if made.label is None else made.label.tobytes())


def _unpack(size: int, value: bytes) -> Cropped | None:
    """None where the value is of another kind."""
    if len(value) < _HEAD.size:
        return None
    height, width, fingerprint, labelled, *numbers = _HEAD.unpack_from(value)
    if len(value) != _HEAD.size + size * size * (4 if labelled else 3):
        return None
    body = np.frombuffer(value, np.uint8, offset=_HEAD.size)
    pixels = body[: size * size * 3].reshape(size, size, 3)
    label = body[size * size * 3 :].reshape(size, size) if labelled else None
    made = Made(pixels, np.array(numbers[:6]).reshape(2, 3), label)
    points = np.array(numbers[6:], np.float32).reshape(5, 2)
    return Cropped((height, width), fingerprint.hex(), points, {size: made})

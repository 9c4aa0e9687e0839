"""Parts as a run of five layers on 112-pixel crops makes them, of random values."""

import hashlib
from collections.abc import Sequence

import numpy as np

from leamfast.engine.plan import Shard
from leamfast.faces.regions import REGIONS
from leamfast.store.arrays import THRESHOLDS, Array
from leamfast.store.part import Part

__all__ = ["LAYERS", "MODEL", "SMALL_LAYERS", "make_part", "part_bytes", "shard_part"]

MODEL = "stand-in"
LAYERS = {"conv1": 112, "layer1": 56, "layer2": 28, "layer3": 14, "layer4": 7}
SMALL_LAYERS = {"layer4": 7}
SIZE, DIMENSIONS = 112, 512


def make_part(number: int, rows: int, layers: dict[str, int] = LAYERS, labels: bool = True) -> Part:
    """A part of `rows` images of `rows / 4` people; the same number gives the same values.

    Args:
        number: of its shard.
        rows: images.
        layers: tap -> side of its maps.
        labels: whether there are region masks and shares.
    """
    first = number * rows
    names = [f"p{(first + row) // 4}/{row % 4}.png" for row in range(rows)]
    people = (np.arange(first, first + rows) // 4).tolist()
    return _part(number, names, [f"p{person}" for person in people], layers, labels)


def shard_part(shard: Shard, layers: dict[str, int] = SMALL_LAYERS) -> Part:
    """A part of a shard's images, without looking at them."""
    names = [entry.name for identity in shard.identities for entry in identity.entries]
    people = [identity.name for identity in shard.identities for _ in identity.entries]
    return _part(shard.number, names, people, layers, labels=False)


def part_bytes(part: Part) -> int:
    """Bytes of its numbers."""
    return sum(array.values.nbytes for array in part.arrays.values() if not array.is_text)


def _part(
    number: int, names: Sequence[str], people: Sequence[str], layers: dict[str, int], labels: bool
) -> Part:
    rng = np.random.default_rng(number)
    rows, persons = len(names), list(dict.fromkeys(people))
    place = {person: at for at, person in enumerate(persons)}
    identity = np.array([place[person] for person in people], np.int64)
    hashes = [hashlib.sha1(name.encode()).hexdigest() for name in names]
    arrays = {
        "image/path": _text(names, "row"),
        "image/sha1": _text(hashes, "row"),
        "image/position": Array(np.arange(rows, dtype=np.int64), ("row",)),
        "image/identity": Array(identity, ("row",), "person"),
        "identity/name": _text(persons, "person"),
        "identity/images": Array(np.bincount(identity, minlength=len(persons)), ("person",)),
        f"crop/{SIZE}/transform": Array(np.zeros((rows, 2, 3)), ("row", "affine_y", "affine_x")),
        f"model/{MODEL}/embedding": Array(_random(rng, (rows, DIMENSIONS), np.float32), ("row", "feature")),
    }
    if labels:
        masks = rng.integers(0, len(REGIONS), (rows, SIZE, SIZE), np.uint8)
        arrays[f"crop/{SIZE}/label"] = Array(masks, ("row", "y", "x"))
    for tap, side in layers.items():
        group = f"model/{MODEL}/layer/{tap}"
        maps = _random(rng, (rows, side, side), np.float16)
        maps[:, 0, 0] = 1
        arrays[f"{group}/map"] = Array(maps, ("row", "h", "w"))
        arrays[f"{group}/scale"] = Array(_random(rng, (rows,), np.float32), ("row",))
        sizes = rng.integers(0, 100, (rows, len(THRESHOLDS)), np.int32)
        arrays[f"{group}/support_size"] = Array(sizes, ("row", "threshold"))
        if labels:
            shares = _random(rng, (rows, len(THRESHOLDS), len(REGIONS)), np.float32)
            arrays[f"{group}/region_share"] = Array(shares, ("row", "threshold", "region"))
        for axis in "hw":
            arrays[f"{group}/{axis}"] = Array(np.arange(side, dtype=np.float32), (axis,))
    groups = {f"model/{MODEL}": {"taps": ",".join(layers), "input_size": SIZE}}
    return Part(number, arrays, groups)


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return rng.random(shape, np.float32).astype(dtype, copy=False)


def _text(values: Sequence[str], dim: str) -> Array:
    return Array(np.array(values, dtype=object), (dim,))

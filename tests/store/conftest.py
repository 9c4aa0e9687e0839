"""Small parts made by hand."""

import numpy as np
import pytest

from leamfast.store.arrays import Array
from leamfast.store.part import Failure, Part


def make_part(shard: int = 0, rows: int = 3, persons: int = 2, seed: int = 0) -> Part:
    rng = np.random.default_rng([seed, shard])
    maps = rng.random((rows, 4, 6)).astype(np.float16)
    maps[:, 0, 0] = 1
    text = lambda values: np.array(values, dtype=object)  # noqa: E731
    arrays = {
        "image/path": Array(text([f"ü{shard}/{i}.png" for i in range(rows)]), ("row",)),
        "image/sha1": Array(text(["0" * 40] * rows), ("row",)),
        "image/identity": Array(np.arange(rows) % max(persons, 1), ("row",), "person"),
        "identity/name": Array(text([f"person {shard}-{i}" for i in range(persons)]), ("person",)),
        "model/m/embedding": Array(rng.random((rows, 8)).astype(np.float32), ("row", "dimension")),
        "model/m/layer/a.b/map": Array(maps, ("row", "h", "w")),
        "model/m/layer/a.b/scale": Array(rng.random(rows).astype(np.float32), ("row",)),
        "model/m/layer/a.b/each/map": Array(maps[:1], ("each", "h", "w")),
        "model/m/layer/a.b/each/scale": Array(np.ones(len(maps[:1]), np.float32), ("each",)),
        "model/m/layer/a.b/each/image_row": Array(np.arange(len(maps[:1])), ("each",), "row"),
        "model/m/layer/a.b/h": Array(np.arange(4, dtype=np.float32), ("h",)),
        "model/m/layer/a.b/w": Array(np.arange(6, dtype=np.float32), ("w",)),
    }
    failures = (Failure(f"bad{shard}.png", "x", "decode", "file is empty, alas"),)
    return Part(shard, arrays, {"model/m": {"target": "loss", "taps": "a.b"}}, failures)


@pytest.fixture
def part() -> Part:
    return make_part()

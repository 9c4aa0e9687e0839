"""Small parts and blocks made by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from leamfast.store.arrays import Array
from leamfast.store.occlusion import OcclusionArrays, OcclusionAxes, array_shape
from leamfast.store.occlusion_block import OcclusionBlock
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


def make_axes(**changes) -> OcclusionAxes:
    axes = {
        "maps": ("a.b", "fused"),
        "percents": (1.0, 2.5, 20.0),
        "controls": ("own", "random-block-4", "master-1"),
        "fills": ("black", "blur"),
        "seeds": (0, 7),
        "steps": (0.0, 33.3, 50.0, 100.0),
    }
    return OcclusionAxes(**(axes | changes))


def make_arrays(axes: OcclusionAxes, rows: int, seed: int = 0, **changes) -> OcclusionArrays:
    """Random values; the second row, where there is one, has no references."""
    rng = np.random.default_rng([seed, rows])
    draw = lambda name: rng.uniform(-1, 1, array_shape(axes, name, rows)).astype(np.float32)  # noqa: E731
    arrays = {name: draw(name) for name in ("drop", "cosine", "ssim")}
    arrays |= {name: abs(draw(name)) * 40 for name in ("support_size", "psnr")}
    arrays["references"] = rng.integers(1, 9, rows).astype(np.int32)
    for name in ("drop", "cosine"):
        arrays[name][1:2] = np.nan
    arrays["references"][1:2] = 0
    if axes.steps:
        arrays |= {name: draw(name) for name in ("deletion", "insertion")}
    return OcclusionArrays(**(arrays | changes))


def make_block(
    number: int = 0,
    count: int = 1,
    first: int = 0,
    rows: int = 3,
    run: str = "sha",
    pairs: Sequence[tuple[str, str]] = (("m", "m"), ("m", "n"), ("n", "m")),
    axes: OcclusionAxes | None = None,
) -> OcclusionBlock:
    axes = axes or make_axes()
    groups = {pair: (axes, make_arrays(axes, rows, 10 * number + n)) for n, pair in enumerate(pairs)}
    return OcclusionBlock(number, count, first, rows, run, groups)


@pytest.fixture
def part() -> Part:
    return make_part()

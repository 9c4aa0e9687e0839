"""How many bytes a part takes."""

import numpy as np
import pytest

from leamfast.store.arrays import Array
from leamfast.store.part import Part, part_image
from leamfast.store.sizes import PartSizes, folder_bytes, part_sizes, value_bytes


def arrays(rows: int, persons: int) -> dict[str, Array]:
    numbers = np.random.default_rng(0)
    return {
        "image/path": Array(np.array(["abcd"] * rows, object), ("row",)),
        "identity/name": Array(np.array(["ab"] * persons, object), ("person",)),
        "model/m/layer/t/map": Array(numbers.random((rows, 56, 56)).astype(np.float16), ("row", "h", "w")),
        "model/m/layer/t/scale": Array(np.ones(rows, np.float32), ("row",)),
        "model/m/layer/t/h": Array(np.arange(56, dtype=np.float32), ("h",)),
    }


def test_values_by_hand():
    sizes = part_sizes(arrays(10, 2), file_bytes=100_000)
    text = 10 * (4 + 32) + 2 * (2 + 32)
    # a map has 6272 bytes: 20 to a chunk of 128 KiB, and here all ten in one
    assert 100_000 - sizes.contents == text + 10 * 6272 + 10 * 4 + 56 * 4


def test_the_last_chunk_is_stored_whole():
    sizes = part_sizes(arrays(10, 2), file_bytes=0)
    maps = [size for size in sizes.arrays if size.row_bytes == 6272]
    assert value_bytes(maps, {"row": 20}) == 20 * 6272
    assert value_bytes(maps, {"row": 21}) == 40 * 6272
    assert value_bytes(maps, {"row": 0}) == 0


@pytest.mark.parametrize("rows", [60, 61, 300])
def test_a_large_part_is_foretold_by_a_small_one(rows):
    small = Part(0, arrays(10, 2))
    sizes = part_sizes(small.arrays, len(part_image(small)))
    foretold = sizes.contents + value_bytes(sizes.arrays, {"row": rows, "person": rows // 5})
    assert foretold == pytest.approx(len(part_image(Part(1, arrays(rows, rows // 5)))), rel=0.02)


def test_a_folder_has_parts_and_text_twice_and_a_source_an_array():
    sizes = PartSizes(part_sizes(arrays(10, 2), 0).arrays, 1000.0)
    one = {"row": 20.0, "person": 2.0}
    text = 20 * 36 + 2 * 34
    part = 1000 + text + 20 * 6272 + 20 * 4 + 56 * 4
    assert folder_bytes(sizes, [one, one]) == 2 * (part + text + 3 * 100) + 600

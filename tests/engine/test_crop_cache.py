"""Crops that were made before: bit for bit, and only where all that they depend on is the same."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from leamfast.engine.crop_cache import CropCache, Cropped, Made


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[CropCache]:
    opened = CropCache(["detector", "arcface"], tmp_path / "crops.sqlite3", pytest.fail)
    yield opened
    opened.close()


def made(size: int, labelled: bool, seed: int = 0) -> Made:
    random = np.random.default_rng(seed)
    label = random.integers(0, 256, (size, size), np.uint8) if labelled else None
    return Made(random.integers(0, 256, (size, size, 3), np.uint8), random.normal(size=(2, 3)), label)


def cropped(labelled: bool = False, sizes: tuple[int, ...] = (8, 5)) -> Cropped:
    points = np.random.default_rng(1).normal(500, 90, (5, 2)).astype(np.float32)
    crops = {size: made(size, labelled) for size in sizes}
    return Cropped((300, 70_000), "00" * 10 + "ff" * 10, points, crops)


@pytest.mark.parametrize("labelled", [False, True])
def test_crops_come_back_bit_for_bit(kept: CropCache, labelled: bool) -> None:
    wanted = cropped(labelled)
    picture = ("a" * 40, (1, 2, 3, 4))
    kept.put([(picture, wanted)])
    found = kept.get(picture, [5, 8])
    assert found is not None
    assert (found.shape, found.fingerprint) == (wanted.shape, wanted.fingerprint)
    np.testing.assert_array_equal(found.points, wanted.points, strict=True)
    for size in (5, 8):
        one, other = found.crops[size], wanted.crops[size]
        np.testing.assert_array_equal(one.pixels, other.pixels, strict=True)
        np.testing.assert_array_equal(one.transform, other.transform, strict=True)
        assert (one.label is None) == (other.label is None) == (not labelled)
        if labelled:
            np.testing.assert_array_equal(one.label, other.label, strict=True)


def test_a_picture_is_known_for_all_sizes_or_not_at_all(kept: CropCache) -> None:
    picture = ("a" * 40, None)
    kept.put([(picture, cropped())])
    assert kept.get(picture, [8]) is not None
    assert kept.get(picture, [8, 6]) is None
    assert kept.get(picture, []) is None
    assert kept.get(("b" * 40, None), [8]) is None
    assert kept.get(("a" * 40, (0, 0, 1, 1)), [8]) is None


def test_a_value_without_points_as_it_was_once_written_is_not_found(kept: CropCache) -> None:
    picture, wanted = ("a" * 40, None), cropped(sizes=(8,))
    crop = wanted.crops[8]
    head = struct.pack("<II20s?6d", *wanted.shape, bytes(20), False, *crop.transform.ravel().tolist())
    kept._values.put([(kept._key(picture, 8), head + crop.pixels.tobytes())])
    assert kept.get(picture, [8]) is None
    kept.put([(picture, wanted)])
    assert kept.get(picture, [8]) is not None


def test_other_words_are_another_cache(kept: CropCache) -> None:
    picture = ("a" * 40, None)
    kept.put([(picture, cropped())])
    other = CropCache(["detector", "paper"], kept._values.file)
    assert other.get(picture, [8]) is None
    other.close()

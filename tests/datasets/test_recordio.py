"""RecordIO data sets, written byte by byte: every image comes back pixel for pixel, every fault in words."""

import io
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leamfast.datasets.decoding import DecodeError, decode_image, read_image
from leamfast.datasets.formats import read_manifest
from leamfast.datasets.manifest import Manifest
from leamfast.datasets.recordio import read_recordio
from leamfast.errors import RequestError

MAGIC = struct.pack("<I", 0xCED7230A)


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def bmp_with_magic() -> bytes:
    """A picture whose bytes hold the magic number twice in a row and once more, and off the raster of 4."""
    stream = io.BytesIO()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(stream, "BMP")
    data = bytearray(stream.getvalue())
    # The image starts 28 bytes into a record with one label, its pixels 54 bytes into the image.
    for place in (56, 60, 100, 121):
        data[place : place + 4] = MAGIC
    return bytes(data)


def payload(labels: float | Sequence[float], number: int, image: bytes) -> bytes:
    if isinstance(labels, (int, float)):
        return struct.pack("<IfQQ", 0, labels, number, 0) + image
    return struct.pack(f"<IfQQ{len(labels)}f", len(labels), 0, number, 0, *labels) + image


def record(data: bytes) -> bytes:
    """As dmlc-core writes it: cut wherever the magic number stands at a multiple of 4."""
    places = [place for place in range(0, len(data) - 3, 4) if data[place : place + 4] == MAGIC]
    parts = [
        data[start:end]
        for start, end in zip([0, *(p + 4 for p in places)], [*places, len(data)], strict=True)
    ]
    kinds = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    return b"".join(
        MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + bytes(-len(part) % 4)
        for kind, part in zip(kinds, parts, strict=True)
    )


def write(folder: Path, payloads: Sequence[bytes], name: str = "train") -> Path:
    """Records 0, 1, ... and their index."""
    folder.mkdir(exist_ok=True)
    data, lines = b"", ""
    for key, part in enumerate(payloads):
        lines += f"{key}\t{len(data)}\n"
        data += record(part)
    (folder / f"{name}.idx").write_text(lines)
    (folder / f"{name}.rec").write_bytes(data)
    return folder / f"{name}.rec"


def dataset(*labels: float | Sequence[float], images: Sequence[bytes] | None = None) -> list[bytes]:
    """Record 0, an image a label, and two identity ranges, as InsightFace has them."""
    images = images or [png(seed) for seed in range(len(labels))]
    count = len(labels) + 1
    records = [
        payload(label, number, image)
        for number, (label, image) in enumerate(zip(labels, images, strict=True), start=1)
    ]
    ranges = [payload([1, 3], count, b""), payload([3, count], count + 1, b"")]
    return [payload([count, count + 2], 0, b""), *records, *ranges]


def check_images(manifest: Manifest, images: dict[str, bytes]) -> None:
    assert {entry.inside for entry in manifest.entries} == set(images)
    for entry in manifest.entries:
        decoded = read_image(manifest.resolve(entry), entry.spans)
        np.testing.assert_array_equal(decoded.pixels, decode_image(images[entry.inside]))


def test_an_insightface_data_set(tmp_path: Path) -> None:
    file = write(tmp_path, dataset(7, [9, 0], 7, [-2]))
    manifest = read_recordio(file)
    assert [(e.path, e.inside, e.identity) for e in manifest.entries] == [
        ("train.rec", "1", "7"),
        ("train.rec", "3", "7"),
        ("train.rec", "2", "9"),
        ("train.rec", "4", "-2"),
    ]
    assert manifest.root == tmp_path
    assert manifest.left_out == {}
    assert manifest.entries[0].name == "train.rec#1"
    check_images(manifest, {str(number): png(number - 1) for number in range(1, 5)})
    assert read_recordio(tmp_path) == manifest


def test_without_labels_in_record_0_all_records_are_images(tmp_path: Path) -> None:
    file = write(tmp_path, [payload(number % 2, number, png(number)) for number in range(5)], "faces")
    manifest = read_recordio(file)
    assert [(e.inside, e.identity) for e in manifest.entries] == [
        ("0", "0"),
        ("2", "0"),
        ("4", "0"),
        ("1", "1"),
        ("3", "1"),
    ]
    check_images(manifest, {str(number): png(number) for number in range(5)})


def test_a_record_that_holds_the_magic_number_is_joined_again(tmp_path: Path) -> None:
    image = bmp_with_magic()
    images = [png(0), image, image, MAGIC + png(3)]
    file = write(tmp_path, dataset(1, 2, [3], [4, 4], images=images))
    manifest = read_recordio(file)
    by_number = {entry.inside: entry for entry in manifest.entries}
    # With one label, the pixels stand such that the raster of 4 meets the magic number three times.
    kinds = [1 + len(by_number[number].spans) // 2 for number in "1234"]
    assert kinds == [1, 4, 4, 2]
    for number, expected in zip("1234", images, strict=True):
        data = file.read_bytes()
        spans = by_number[number].spans
        assert b"".join(data[offset : offset + length] for offset, length in spans) == expected
        assert all(length > 0 for _, length in spans)
    del by_number["4"]
    check_images(
        Manifest(manifest.root, tuple(by_number.values())), dict(zip("123", images[:3], strict=True))
    )


def test_the_magic_number_within_the_labels(tmp_path: Path) -> None:
    label = struct.unpack("<f", MAGIC)[0]
    records = [payload([5, label, 1], 0xCED7230A, png(1)), payload(label, 0, png(2))]
    manifest = read_recordio(write(tmp_path, [payload(0, 0, png(0)), *records]))
    assert {entry.inside: entry.identity for entry in manifest.entries} == {
        "0": "0",
        "1": "5",
        "2": str(int(label)),
    }
    check_images(manifest, {str(number): png(number) for number in range(3)})


def test_keys_in_any_order_and_windows_line_ends(tmp_path: Path) -> None:
    file = write(tmp_path, dataset(1, 2, 3))
    expected = read_recordio(file)
    lines = (tmp_path / "train.idx").read_text().splitlines()
    (tmp_path / "train.idx").write_bytes("\r\n".join(reversed(lines)).encode())
    assert read_recordio(file) == expected


def test_cut_off_in_the_middle(tmp_path: Path) -> None:
    images = [png(0), bmp_with_magic(), png(2), png(3)]
    file = write(tmp_path, dataset(1, 2, 3, 4, images=images))
    data = file.read_bytes()
    full = read_recordio(file)
    ends = {e.inside: sum(e.spans[-1]) for e in full.entries}
    for size in range(0, len(data), 3):
        file.write_bytes(data[:size])
        whole = {number for number, end in ends.items() if end <= size}
        if not whole:
            with pytest.raises(
                RequestError, match="cut off in record 0|none .4 x record that reaches beyond"
            ):
                read_recordio(file)
            continue
        manifest = read_recordio(file)
        assert {entry.inside for entry in manifest.entries} == whole
        if len(whole) < 4:
            assert manifest.left_out == {"record that reaches beyond the end of the file": 4 - len(whole)}
        check_images(manifest, {number: images[int(number) - 1] for number in whole})


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    records = dataset(1, float("nan"), 1e20, 4, 5, 6, images=[*map(png, range(3)), b"", *map(png, (4, 5))])
    records[5] = records[5][:10]
    file = write(tmp_path, records)
    lines = (tmp_path / "train.idx").read_text().splitlines(keepends=True)
    (tmp_path / "train.idx").write_text("".join(line for line in lines if not line.startswith("6\t")))
    manifest = read_recordio(file)
    assert [entry.identity for entry in manifest.entries] == ["1"]
    assert manifest.left_out == {
        "image record that the .idx does not list": 1,
        "record that is damaged": 1,
        "record without an image": 1,
        "record whose label is no identity": 2,
    }


def test_records_that_overlap_or_lose_a_part_are_damaged(tmp_path: Path) -> None:
    images = [png(0), bmp_with_magic(), png(2), bmp_with_magic()]
    file = write(tmp_path, dataset(1, 2, 3, 4, images=images))
    starts = [int(line.split("\t")[1]) for line in (tmp_path / "train.idx").read_text().splitlines()]
    data = bytearray(file.read_bytes())
    data[starts[1] + 4] += 16
    second_part = data.index(MAGIC, starts[2] + 1)
    data[second_part : second_part + 4] = bytes(4)
    last_part = max(place for place in range(starts[4], starts[5], 4) if data[place : place + 4] == MAGIC)
    data[last_part + 7] ^= 3 << 5
    file.write_bytes(data)
    manifest = read_recordio(file)
    assert manifest.left_out == {"record that is damaged": 3}
    check_images(manifest, {"3": images[2]})


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "line 1 must be a record's number"),
        ("<!DOCTYPE html>\n<html></html>\n", "line 1 must be a record's number, a tab and its offset"),
        ("0\t0\n1\t40\t7\n", "line 2 must be"),
        ("0\t0\n\n1\t40\n", "line 2 must be"),
        ("0\t0\n1\t-40\n", "line 2 must be"),
        ("0\t0\n1\t4e1\n", "line 2 must be"),
        ("0\t0\n1\t" + "9" * 19, "line 2 must be"),
        ("0\t0\n1\t40\n1\t200\n", "it lists the record 1 twice"),
        ("0\t0\n1\t40\n2\t40\n", "it lists the offset 40 twice"),
        ("0\t0\n1\t44\n", r"places record 1 at byte 44, where none starts.*belongs to another data set"),
        ("0\t4\n1\t40\n", "places record 0 at byte 4, where none starts"),
        ("0\t99999999\n", "empty or cut off in record 0"),
        ("0\t0\n1\t99999999\n", "1 x record that reaches beyond the end of the file"),
    ],
)
def test_a_wrong_index(index: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path, dataset(1, 2, 3))
    (tmp_path / "train.idx").write_text(index)
    with pytest.raises(RequestError, match=message) as caught:
        read_recordio(file)
    assert str(tmp_path) in str(caught.value)


def test_an_offset_within_a_split_record(tmp_path: Path) -> None:
    file = write(tmp_path, [payload(0, 0, png(0)), payload(1, 1, bmp_with_magic()), payload(2, 2, png(2))])
    starts = [int(line.split("\t")[1]) for line in (tmp_path / "train.idx").read_text().splitlines()]
    inner = file.read_bytes().index(MAGIC, starts[1] + 1)
    (tmp_path / "train.idx").write_text(f"0\t0\n1\t{inner}\n2\t{starts[2]}\n")
    with pytest.raises(RequestError, match=f"places record 1 at byte {inner}, where none starts"):
        read_recordio(file)


@pytest.mark.parametrize("count", [0, -3, 0.5, float("nan"), float("inf"), 1e30])
def test_a_wrong_number_in_record_0(count: float, tmp_path: Path) -> None:
    file = write(tmp_path, [payload([count, 9], 0, b""), payload(1, 1, png(0))])
    with pytest.raises(RequestError, match="record 0 must give the number of image records plus one, not"):
        read_recordio(file)


def test_files_that_are_missing_or_something_else(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "train.rec", tmp_path / "none" / "x.rec"):
        with pytest.raises(RequestError, match=r"with its \.idx beside it, got .*: there is no file .*\.rec"):
            read_recordio(path)
    (tmp_path / "train.rec").write_text("<html>404 Not Found</html>" * 9)
    with pytest.raises(RequestError, match=r"there is no file .*train\.idx"):
        read_recordio(tmp_path)
    (tmp_path / "train.idx").write_text("0\t0\n")
    with pytest.raises(RequestError, match="places record 0 at byte 0, where none starts"):
        read_recordio(tmp_path)
    (tmp_path / "train.rec").write_bytes(b"")
    with pytest.raises(RequestError, match="empty or cut off in record 0"):
        read_recordio(tmp_path)


def test_a_data_set_of_no_images(tmp_path: Path) -> None:
    file = write(tmp_path, [payload([1, 1], 0, b"")])
    with pytest.raises(RequestError, match=r"must hold images, got .*train\.rec with none \(no record\)"):
        read_recordio(file)


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    file = write(tmp_path, dataset(1), "b\udcff")
    with pytest.raises(RequestError, match="must have names in UTF-8"):
        read_manifest(file)


@pytest.mark.parametrize("suffix", [".rec", ".idx"])
def test_damage_gives_a_sentence_or_images(suffix: str, tmp_path: Path) -> None:
    images = [png(0), bmp_with_magic(), png(2)]
    file = write(tmp_path, dataset(1, [2, 5], 3, images=images)).with_suffix(suffix)
    data = file.read_bytes()
    rng = random.Random(suffix)
    sentences: set[str] = set()
    outcomes = set()
    for _ in range(600):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 4))):
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        try:
            manifest = read_recordio(tmp_path)
        except RequestError as exc:
            sentences.add(str(exc))
            continue
        for entry in manifest.entries:
            try:
                read_image(manifest.resolve(entry), entry.spans)
                outcomes.add("read")
            except DecodeError:
                outcomes.add("left to the decoder")
    assert "read" in outcomes
    assert sentences
    assert not any("\n" in sentence for sentence in sentences)

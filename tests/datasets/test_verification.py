"""Verification sets, pickled in every protocol and by hand: images come back, and nothing is ever run."""

import io
import os
import pickle
import random
import re
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from leamfast.datasets.decoding import DecodeError, decode_image, read_image
from leamfast.datasets.formats import read_manifest
from leamfast.datasets.manifest import Manifest
from leamfast.datasets.verification import read_verification
from leamfast.errors import RequestError


def png(seed: int, side: int = 5) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


# Under 256 bytes, under and over 64 KiB: each has an instruction or a place beside the frames of its own.
IMAGES = [png(0), png(1), png(2, 40), png(3, 40), png(4, 200), png(5)]
SAME = [True, False, True]


def write(folder: Path, data: bytes) -> Path:
    (folder / "set.bin").write_bytes(data)
    return folder / "set.bin"


def check_images(manifest: Manifest, images: Sequence[bytes] = IMAGES) -> None:
    assert sorted(int(entry.inside) for entry in manifest.entries) == list(range(len(images)))
    for entry in manifest.entries:
        decoded = read_image(manifest.resolve(entry), entry.spans)
        np.testing.assert_array_equal(decoded.pixels, decode_image(images[int(entry.inside)]))


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_what_python_3_writes(protocol: int, tmp_path: Path) -> None:
    file = write(tmp_path, pickle.dumps((IMAGES, SAME), protocol))
    manifest = read_verification(file)
    assert [(e.path, e.inside, e.identity, e.metadata) for e in manifest.entries] == [
        ("set.bin", "0", "pair-0000", {"pair": "0", "same": "1"}),
        ("set.bin", "1", "pair-0000", {"pair": "0", "same": "1"}),
        ("set.bin", "2", "pair-0001-a", {"pair": "1", "same": "0"}),
        ("set.bin", "3", "pair-0001-b", {"pair": "1", "same": "0"}),
        ("set.bin", "4", "pair-0002", {"pair": "2", "same": "1"}),
        ("set.bin", "5", "pair-0002", {"pair": "2", "same": "1"}),
    ]
    assert manifest.columns == ("pair", "same")
    assert manifest.root == tmp_path
    assert manifest.left_out == {}
    check_images(manifest)


@pytest.mark.parametrize("value", [[IMAGES, [1, 0, 1]], (tuple(IMAGES), (1, 0, 1))])
def test_lists_tuples_and_numbers_as_truth_values(value: object, tmp_path: Path) -> None:
    expected = read_verification(write(tmp_path, pickle.dumps((IMAGES, SAME), 4)))
    manifest = read_verification(write(tmp_path, pickle.dumps(value, 4)))
    assert [entry.identity for entry in manifest.entries] == [entry.identity for entry in expected.entries]
    check_images(manifest)


def test_bytearrays_and_images_that_the_pickle_refers_to_twice(tmp_path: Path) -> None:
    images = [IMAGES[0], IMAGES[0], IMAGES[1], IMAGES[0]]
    for protocol in (3, 4):
        check_images(read_verification(write(tmp_path, pickle.dumps((images, [1, 0]), protocol))), images)
    arrays = [bytearray(image) for image in images]
    check_images(read_verification(write(tmp_path, pickle.dumps((arrays, [1, 0]), 5))), images)


def test_a_thousand_and_more_pairs(tmp_path: Path) -> None:
    images = [png(0)[:-1] + bytes([number % 251]) for number in range(2400)]
    file = write(tmp_path, pickle.dumps((images, [True] * 1200), 4))
    manifest = read_verification(file)
    data = file.read_bytes()
    assert manifest.identities[-1] == "pair-1199"
    for entry, image in zip(manifest.entries, images, strict=True):
        ((offset, length),) = entry.spans
        assert data[offset : offset + length] == image


def python_2(protocol: int) -> bytes:
    """What Python 2 writes, instruction by instruction."""
    data = bytearray()
    if protocol == 2:
        data += b"\x80\x02"
    else:
        data += b"("
    data += b"]q\x01("
    for number, image in enumerate(IMAGES):
        data += b"U" + bytes([len(image)]) if len(image) < 256 else b"T" + struct.pack("<i", len(image))
        data += image + b"q" + bytes([2 + number])
    data += b"e]q\x10("
    data += b"".join((b"\x88" if same else b"\x89") if protocol == 2 else b"I0%d\n" % same for same in SAME)
    return bytes(data + (b"e\x86q\x11." if protocol == 2 else b"etq\x11."))


@pytest.mark.parametrize("protocol", [1, 2])
def test_what_python_2_writes(protocol: int, tmp_path: Path) -> None:
    data = python_2(protocol)
    assert pickle.loads(data, encoding="bytes") == (IMAGES, SAME)
    manifest = read_verification(write(tmp_path, data))
    assert manifest.entries[-1].identity == "pair-0002"
    assert manifest.entries[2].identity == "pair-0001-a"
    check_images(manifest)


def test_the_other_instructions_of_lists_and_the_memo(tmp_path: Path) -> None:
    image = b"B" + struct.pack("<I", len(IMAGES[0])) + IMAGES[0]
    data = b"((lp0\n" + image + b"p1\nag1\na" + image + b"r\x02\0\0\0aj\x02\0\0\0a"
    data += b"(K\x01M\0\0ltp9\n."
    images = [IMAGES[0]] * 4
    assert pickle.loads(data) == (images, [1, 0])
    manifest = read_verification(write(tmp_path, data))
    assert manifest.identities == ("pair-0000", "pair-0001-a", "pair-0001-b")
    check_images(manifest, images)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_escaped_images_must_be_rewritten_as_the_sentence_says(protocol: int, tmp_path: Path) -> None:
    file = write(tmp_path, pickle.dumps((IMAGES, SAME), protocol))
    with pytest.raises(
        RequestError, match="images are written as escaped text, not as bytes: if you"
    ) as caught:
        read_verification(file)
    command = re.search(r"pickle\.dump.*", str(caught.value))
    assert command is not None
    new = tmp_path / "new.bin"
    with ExitStack() as stack:

        def opened(path: Path, mode: str) -> IO[bytes]:
            return stack.enter_context(path.open(mode))

        exec(command[0], {"pickle": pickle, "OLD": file, "NEW": new, "open": opened})
    check_images(read_verification(new))


def test_python_2_s_protocol_0_must_be_rewritten_too(tmp_path: Path) -> None:
    text = b"".join(b"S%s\naS%s\na" % ((repr(image)[1:].encode(),) * 2) for image in IMAGES[:1])
    file = write(tmp_path, b"((lp0\n" + text + b"(lp1\nI01\natp2\n.")
    with pytest.raises(RequestError, match="written as escaped text"):
        read_verification(file)
    assert pickle.loads(file.read_bytes(), encoding="bytes") == ([IMAGES[0]] * 2, [True])


# Pickles that do something


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["all", "image", "truth"])
def test_code_in_a_pickle_is_refused_and_not_run(protocol: int, place: str, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    evil = Evil(str(trap))
    value = {"all": evil, "image": ([evil], [True]), "truth": ([], [evil])}[place]
    data = pickle.dumps(value, protocol)
    with pytest.raises(RequestError, match="nothing else is loaded") as caught:
        read_verification(write(tmp_path, data))
    assert "\n" not in str(caught.value)
    assert not trap.exists()
    pickle.loads(data)
    assert trap.exists()


MALICIOUS = {
    "global and reduce": (b"(cos\nmkdir\n(V%s\ntRI01\nt.", "the instruction GLOBAL of os.mkdir at byte 1"),
    "inst": (b"((V%s\nios\nmkdir\nI01\nt.", "the instruction UNICODE at byte 2"),
    "inst without arguments": (b"((ios\nmkdir\n.", "the instruction INST at byte 2"),
    "object": (b"((cos\nmkdir\nV%s\noI01\nt.", "the instruction GLOBAL of os.mkdir at byte 2"),
    "stack global": (
        b"\x80\x04(\x8c\x02os\x8c\x05mkdir\x93\x8c%c%s\x85RI01\nt.",
        "the instruction SHORT_BINUNICODE at byte 3",
    ),
    "codecs and more": (
        b"(c_codecs\nlookup\n(V%s\ntR.",
        "the instruction GLOBAL of _codecs.lookup at byte 1",
    ),
    "odd names": (b"(cos\x1b[2J\nmkdir\n.", r"the instruction GLOBAL of os\\x1b\[2J\.mkdir at byte 1"),
    "persistent": (b"(P%s\n.", "the instruction PERSID at byte 1"),
    "extension": (b"\x80\x02\x82\x01.", "the instruction EXT1 at byte 2"),
    "build": (b"(]}b.", "the instruction EMPTY_DICT at byte 2"),
    "buffer": (b"\x80\x05\x97.", "the instruction NEXT_BUFFER at byte 2"),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_instructions_of_other_kinds(name: str, tmp_path: Path) -> None:
    template, message = MALICIOUS[name]
    trap = os.fsencode(tmp_path / "trap")
    data = template.replace(b"%s", trap).replace(b"%c", bytes([len(trap)]))
    with pytest.raises(RequestError, match=message + ".*nothing else is loaded"):
        read_verification(write(tmp_path, data))
    assert not (tmp_path / "trap").exists()


# What is wrong otherwise

A = b"C\x01a"
BROKEN = {
    "empty file": (b"", "it is empty"),
    "html": (b"<!DOCTYPE html>\n<html>404</html>", "it is no pickle"),
    "text": (b"cat,dog\n", "cut off or damaged before byte 8"),
    "image": (IMAGES[0], "it is no pickle"),
    "no value": (b"(.", "ends with 0 values, not one"),
    "only stop": (b"\x80\x04.", "ends with 0 values, not one"),
    "two values": (b"\x80\x04]].", "ends with 2 values, not one"),
    "no tuple": (b"\x80\x04].", "not a tuple of two lists"),
    "bytes alone": (b"\x80\x04" + A + b".", "not a tuple of two lists"),
    "no list": (b"\x80\x04" + A + b"]\x86.", "first part of its tuple is not a list of bytes"),
    "numbers for bytes": (
        b"\x80\x04](K\x01K\x02e](\x88e\x86.",
        "first part of its tuple is not a list of bytes",
    ),
    "bytes for truth": (b"\x80\x04](" + A + A + b"e](" + A + b"e\x86.", "not a list of truth values"),
    "itself": (b"\x80\x04]\x94h\0a]\x86.", "first part of its tuple is not a list of bytes"),
    "two": (b"\x80\x04](" + A + A + b"e]K\x02a\x86.", "must be 0 or 1, not 2"),
    "too few images": (b"\x80\x04](" + A + A + A + b"e](\x88\x89e\x86.", "has 3 images for 2 pairs"),
    "too many images": (b"\x80\x04](" + A + A + A + b"e](\x88e\x86.", "has 3 images for 1 pairs"),
    "nothing": (b"\x80\x04]]\x86.", "it has no images"),
    "only empty images": (b"\x80\x04](C\0C\0e]\x88a\x86.", "it has no images"),
    "no mark": (b"\x80\x04]e.", "damaged before byte 4"),
    "mark below": (b"\x80\x04](00\x86.", "the instruction POP at byte 4"),
    "stack is empty": (b"\x80\x04\x86.", "damaged before byte 3"),
    "mark is above": (b"\x80\x04]](at.", "damaged before byte 7"),
    "append to bytes": (b"\x80\x04" + A + A + b"a.", "damaged before byte 9"),
    "memo": (b"\x80\x04h\x05.", "damaged before byte 4"),
    "no number": (b"(Ix\n.", "damaged before byte 4"),
    "long number": (b"(I" + b"1" * 5000 + b"\n.", "cut off or damaged"),
    "negative length": (b"\x80\x02T\xff\xff\xff\xff.", "damaged before byte 7"),
    "beyond the end": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "cut off after 12 bytes"),
    "unknown instruction": (b"\x80\x04\xff.", "damaged at byte 2"),
    "no stop": (b"\x80\x04]]\x86", "cut off after 5 bytes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_set(name: str, tmp_path: Path) -> None:
    data, message = BROKEN[name]
    file = write(tmp_path, data)
    with pytest.raises(RequestError, match=re.escape(f"(images, is_same), got {file}: ") + ".*" + message):
        read_verification(file)


def test_an_image_without_bytes_is_counted(tmp_path: Path) -> None:
    manifest = read_verification(write(tmp_path, pickle.dumps(([IMAGES[0], b""], [True]), 4)))
    assert [entry.inside for entry in manifest.entries] == ["0"]
    assert manifest.left_out == {"image without bytes": 1}


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.bin"):
        with pytest.raises(RequestError, match="there is no such file"):
            read_verification(path)
    file = tmp_path / "b\udcff.bin"
    file.write_bytes(pickle.dumps((IMAGES, SAME), 4))
    with pytest.raises(RequestError, match="must have names in UTF-8"):
        read_manifest(file)


SMALL = ([IMAGES[0], IMAGES[1]], [True])


def test_cut_off_anywhere(tmp_path: Path) -> None:
    for data in (*(pickle.dumps(SMALL, protocol) for protocol in range(6)), python_2(2)[:5000]):
        for size in range(0, len(data) - 1, 7):
            with pytest.raises(RequestError):
                read_verification(write(tmp_path, data[:size]))


def test_damage_gives_a_sentence_or_images(tmp_path: Path) -> None:
    rng = random.Random(6)
    sources = [pickle.dumps(SMALL, protocol) for protocol in range(6)]
    sentences: set[str] = set()
    outcomes = set()
    for number in range(1500):
        damaged = bytearray(sources[number % 6])
        for _ in range(rng.choice((1, 1, 4))):
            # Half of the flips go where instructions are dense.
            place = (
                rng.randrange(len(damaged))
                if rng.random() < 0.5
                else rng.choice((*range(20), *range(-20, 0)))
            )
            damaged[place] ^= 1 << rng.randrange(8)
        try:
            manifest = read_verification(write(tmp_path, bytes(damaged)))
        except RequestError as exc:
            sentences.add(str(exc))
            continue
        for entry in manifest.entries:
            try:
                read_image(manifest.resolve(entry), entry.spans)
                outcomes.add("read")
            except DecodeError:
                outcomes.add("left to the decoder")
    assert outcomes == {"read", "left to the decoder"}
    assert sentences
    assert not any("\n" in sentence for sentence in sentences)

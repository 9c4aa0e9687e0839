"""Damaged pictures of every kind, cut off and with bytes changed, alone and as the data of a run."""

import csv
import io
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from leamfast import open_results
from leamfast.cli.main import app
from leamfast.datasets.decoding import FORMATS, DecodeError, decode_image, read_image
from leamfast.store.verify import verify

FILES = 2000
SECONDS = 5.0


def picture(side: int, seed: int = 0) -> Image.Image:
    """Smooth colours with noise, as photos have both."""
    y, x = np.mgrid[:side, :side] / side
    noise = np.random.default_rng(seed).normal(0, 20, (side, side, 3))
    return Image.fromarray(
        (255 * np.stack([x, y, (x + y) / 2], axis=2) + noise).clip(0, 255).astype(np.uint8)
    )


def kinds(side: int) -> dict[str, bytes]:
    """One sound file of every kind, by Pillow's name of the format and what is special about it."""
    colour = picture(side)
    grey, bits, palette, alpha = colour.convert("L"), colour.convert("1"), colour.quantize(64), colour.copy()
    alpha.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    other = colour.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "turned"
    made = {
        "JPEG": (colour, {}),
        "JPEG progressive": (colour, {"progressive": True}),
        "JPEG grey": (grey, {}),
        "JPEG CMYK": (colour.convert("CMYK"), {}),
        "JPEG EXIF": (colour, {"exif": exif}),
        "JPEG restarts": (colour, {"restart_marker_blocks": 2}),
        "PNG": (colour, {}),
        "PNG 16 bits": (deep, {}),
        "PNG 1 bit": (bits, {}),
        "PNG palette": (palette, {}),
        "PNG alpha": (alpha, {}),
        "WEBP": (colour, {}),
        "WEBP lossless": (colour, {"lossless": True}),
        "WEBP alpha": (alpha, {"exif": exif}),
        "WEBP frames": (colour, {"save_all": True, "append_images": [other]}),
        "BMP": (colour, {}),
        "BMP palette": (palette, {}),
        "BMP 1 bit": (bits, {}),
        "GIF": (palette, {"interlace": 1}),
        "GIF plain": (palette, {"interlace": 0}),
        "GIF frames": (palette, {"save_all": True, "append_images": [other.quantize(64)]}),
        "TIFF": (colour, {}),
        "TIFF 16 bits": (deep, {}),
        "TIFF CMYK": (colour.convert("CMYK"), {}),
        "PPM": (colour, {}),
        "PPM grey": (grey, {}),
        "PPM 1 bit": (bits, {}),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        made[f"TIFF {compression}"] = (colour, {"compression": compression})
    made["TIFF group4"] = (bits, {"compression": "group4"})
    files = {name: encoded(image, name.split()[0], **options) for name, (image, options) in made.items()}
    samples = " ".join(map(str, np.asarray(colour).ravel()))
    files["PPM plain"] = f"P3\n{side} {side}\n255\n{samples}\n".encode()
    files["PNG interlaced"] = interlaced(grey)
    return files


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def interlaced(grey: Image.Image) -> bytes:
    """A PNG with Adam7, which Pillow reads and does not write."""
    pixels = np.asarray(grey)
    rows = b""
    for y, x, down, right in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)
    ):  # fmt: skip
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[y::down, x::right])
    header = struct.pack(">IIBBBBB", grey.width, grey.height, 8, 0, 0, 0, 1)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


@pytest.fixture(scope="module")
def sound() -> dict[str, bytes]:
    return kinds(128)


def cuts(data: bytes) -> list[bytes]:
    """A file cut off at every KiB, and where little is missing."""
    return [
        data[:end] for end in sorted({*range(0, len(data), 1024), *(len(data) - n for n in (1, 2, 3, 9))})
    ]


def changed(data: bytes, random: np.random.Generator) -> bytes:
    """A file with 1 to 16 other bytes, every second time near its start, where the headers are."""
    damaged = bytearray(data)
    end = random.choice([len(data), min(len(data), 200)])
    for position in random.integers(0, end, random.choice([1, 1, 4, 16])):
        damaged[position] ^= int(random.integers(1, 256))
    return bytes(damaged)


def decoded(data: bytes, where: str) -> np.ndarray | None:
    """The picture, or None where it is refused as it should be: in a line, without delay."""
    start = time.monotonic()
    try:
        pixels = decode_image(data)
    except DecodeError as error:
        reason = str(error)
        assert reason, where
        assert reason.isprintable(), where
        pixels = None
    else:
        assert pixels.dtype == np.uint8, where
        assert pixels.ndim == 3, where
        assert pixels.shape[2] == 3, where
        assert pixels.size, where
    assert time.monotonic() - start < SECONDS, where
    return pixels


def test_all_formats_are_there_and_sound(sound: dict[str, bytes]) -> None:
    assert {name.split()[0] for name in sound} == set(FORMATS)
    for name, data in sound.items():
        assert decode_image(data).shape == (128, 128, 3), name
    grey = np.asarray(picture(128).convert("L"))
    np.testing.assert_array_equal(decode_image(sound["PNG interlaced"])[..., 0], grey)


def test_two_thousand_damaged_files(sound: dict[str, bytes]) -> None:
    files = 0
    silent: dict[str, int] = {}
    for name, data in sound.items():
        whole = decode_image(data)
        for cut in cuts(data):
            files += 1
            pixels = decoded(cut, f"{name} cut at {len(cut)} of {len(data)}")
            if pixels is None:
                continue
            silent[name] = silent.get(name, 0) + 1
            # Where nothing says that a file has an end, no pixel is made up: what is gone is padding, a
            # trailer, a later frame. Only numbers written out as text lose their last digit in silence.
            assert name == "PPM plain" or np.array_equal(pixels, whole), f"{name} cut at {len(cut)}"
    assert not [name for name in silent if name.startswith(("JPEG", "PNG", "WEBP"))], silent
    random = np.random.default_rng(20)
    names = list(sound)
    refused = dict.fromkeys(names, 0)
    for number in range(FILES - files):
        name = names[number % len(names)]
        refused[name] += decoded(changed(sound[name], random), f"{name}, change {number}") is None
    assert files < FILES - 10 * len(names)
    assert all(refused.values()), refused


def damaged_folder(root: Path) -> Iterator[Path]:
    """Ten people with two sound pictures each, and among them damaged ones; gives the damaged files."""
    random = np.random.default_rng(7)
    for person in range(10):
        (root / f"p{person}").mkdir(parents=True)
        for number in range(2):
            image = picture(112, seed=10 * person + number + 1)
            (root / f"p{person}" / f"sound{number}.png").write_bytes(encoded(image, "PNG"))
    for number, (name, data) in enumerate(kinds(112).items()):
        versions = [*cuts(data)[1::8][:4], *(changed(data, random) for _ in range(4))]
        for version, content in enumerate(versions):
            file = root / f"p{number % 10}" / f"{name.replace(' ', '-')}.{version}.jpg"
            file.write_bytes(content)
            yield file


def reason_against(file: Path) -> str | None:
    try:
        read_image(file)
    except DecodeError as error:
        return str(error)
    return None


def test_a_folder_of_damaged_files_is_a_run_that_finishes(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    files = list(damaged_folder(data))
    assert len(files) > 200
    options = ["--model", "demo=random:0", "--align", "none", "--layers", "conv1", "--threads", "1"]
    result = CliRunner().invoke(app, ["batch", str(data), "--out", str(out), *options, "--json"])
    assert result.exit_code == 0, result.output
    assert verify(out) == []
    with (out / "failures.csv").open(newline="") as stream:
        failures = {row["path"]: (row["stage"], row["reason"]) for row in csv.DictReader(stream)}
    with open_results(out) as results:
        used = set(results.text("image/path"))
    refused = 0
    for file in files:
        name = str(file.relative_to(data))
        reason = reason_against(file)
        if reason is None:
            # What can be read is used, or is the same picture as another, or no longer square.
            assert name in used or failures[name][0] in ("duplicate", "align")
        else:
            refused += 1
            assert failures[name] == ("decode", reason)
            assert name not in used
    assert refused > 100
    assert {f"p{person}/sound{number}.png" for person in range(10) for number in range(2)} <= used

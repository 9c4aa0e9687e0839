"""Image files of every kind that turns up in face data sets, sound and broken, made here with Pillow."""

import hashlib
import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from leamfast.datasets.decoding import IMAGE_SUFFIXES, DecodeError, decode_image, decode_label, read_image

CUT = "file is cut off or damaged"
UNKNOWN = "not an image of a known format, or its header is damaged"
OTHER = "the mask holds the value {}, regions end at 18, 255 is unknown"


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int = 12, width: int = 17, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(samples: np.ndarray, depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand: Pillow writes neither 16-bit colour nor 2- and 4-bit grey."""
    height, width = samples.shape[:2]
    if depth == 16:
        rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    elif depth == 8:
        rows = samples.reshape(height, -1).astype(np.uint8)
    else:
        bits = (samples[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


# Colours


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("PPM", {}),
    ],
)
def test_lossless_colour_is_kept(kind: str, options: dict) -> None:
    pixels = noise()
    decoded = decode_image(encode(Image.fromarray(pixels), kind, **options))
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    assert decoded.flags.c_contiguous


def test_grey_is_repeated() -> None:
    grey = noise()[..., 0]
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        decoded = decode_image(encode(Image.fromarray(grey), kind))
        np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))


def test_one_bit_is_black_and_white() -> None:
    bits = noise()[..., 0] > 127
    decoded = decode_image(encode(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(decoded, np.repeat(bits[..., None] * np.uint8(255), 3, axis=2))


def test_palette_gives_its_colours() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8))
    image = image.convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50, 0, 255, 0])
    expected = [[[10, 20, 30], [200, 100, 50]], [[0, 255, 0], [200, 100, 50]]]
    np.testing.assert_array_equal(decode_image(encode(image, "PNG")), expected)
    np.testing.assert_array_equal(decode_image(encode(image, "GIF")), expected)


COLOURS = {
    "cyan": ((255, 0, 0, 0), (0, 255, 255)),
    "magenta": ((0, 255, 0, 0), (255, 0, 255)),
    "yellow": ((0, 0, 255, 0), (255, 255, 0)),
    "black": ((0, 0, 0, 255), (0, 0, 0)),
    "white": ((0, 0, 0, 0), (255, 255, 255)),
    "brown": ((0, 128, 255, 64), (191, 95, 0)),
}


@pytest.mark.parametrize("name", COLOURS)
def test_cmyk_jpeg_is_not_a_negative(name: str) -> None:
    ink, colour = COLOURS[name]
    data = encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
    # Files with Adobe's marker, as all that are met in practice, store the inks inverted.
    assert b"Adobe" in data
    assert np.abs(decode_image(data).astype(int) - colour).max() <= 2


def test_cmyk_tiff() -> None:
    for ink, colour in COLOURS.values():
        data = encode(Image.new("CMYK", (4, 4), ink), "TIFF")
        assert np.abs(decode_image(data).astype(int) - colour).max() <= 1


RAMP = np.array([[0, 255, 256, 257], [32767, 32768, 65280, 65535]], dtype=np.uint16)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    expected = np.repeat((RAMP >> 8).astype(np.uint8)[..., None], 3, axis=2)
    assert expected.max() == 255
    assert expected[1, 0, 0] == 127
    files = {
        "png": png(RAMP, 16, 0),
        "tiff": encode(Image.fromarray(RAMP), "TIFF"),
        "tiff, big endian": encode(Image.fromarray(RAMP.astype(">u2")), "TIFF"),
        "pgm": b"P5 4 2 65535\n" + RAMP.astype(">u2").tobytes(),
    }
    for kind, data in files.items():
        np.testing.assert_array_equal(decode_image(data), expected, err_msg=kind)


def test_sixteen_bit_colour_agrees_with_sixteen_bit_grey() -> None:
    samples = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
    np.testing.assert_array_equal(decode_image(png(samples, 16, 2)), (samples >> 8).astype(np.uint8))


@pytest.mark.parametrize(("mode", "dtype"), [("I", np.int32), ("F", np.float32)])
def test_pixels_without_an_agreed_range_are_refused(mode: str, dtype: type) -> None:
    data = encode(Image.fromarray(np.ones((4, 4), dtype=dtype)), "TIFF")
    with pytest.raises(DecodeError, match="32-bit and floating-point pixels have no agreed range"):
        decode_image(data)


# Transparency


def test_transparent_pixels_are_black_whatever_lies_under_them() -> None:
    rgba = np.dstack([np.full((2, 3, 3), 200, np.uint8), np.array([[0, 128, 255]] * 2, np.uint8)])
    for kind in ("PNG", "TIFF"):
        decoded = decode_image(encode(Image.fromarray(rgba), kind))
        np.testing.assert_array_equal(decoded[0, :, 0], [0, 100, 200])
    decoded = decode_image(encode(Image.fromarray(rgba), "WEBP", lossless=True, exact=True))
    np.testing.assert_array_equal(decoded[0, :, 0], [0, 100, 200])


def test_transparency_of_grey_palette_and_key_colours() -> None:
    grey = np.dstack([np.full((1, 3), 200, np.uint8), np.array([[0, 128, 255]], np.uint8)])
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(grey), "PNG"))[0, :, 1], [0, 100, 200])

    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    decoded = decode_image(encode(image, "PNG", transparency=1))
    np.testing.assert_array_equal(decoded, [[[10, 20, 30], [0, 0, 0]]])

    keyed = Image.fromarray(np.array([[[9, 9, 9], [7, 8, 9]]], np.uint8))
    decoded = decode_image(encode(keyed, "PNG", transparency=(9, 9, 9)))
    np.testing.assert_array_equal(decoded, [[[0, 0, 0], [7, 8, 9]]])

    sixteen = png(np.array([[512, 60000]], np.uint16), 16, 0, (b"tRNS", struct.pack(">H", 60000)))
    np.testing.assert_array_equal(decode_image(sixteen)[..., 0], [[2, 0]])


# Orientation and frames

TURNED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_orientation_is_applied_once(kind: str, options: dict, orientation: int) -> None:
    pixels = noise()
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(Image.fromarray(pixels), kind, exif=exif, **options))
    np.testing.assert_array_equal(decoded, TURNED[orientation](pixels))
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(noise()), "PNG", exif=exif)), noise())


def test_orientation_of_a_photo() -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_image(encode(Image.fromarray(pixels), "JPEG", quality=100, subsampling=0, exif=exif))
    assert decoded.shape == (32, 16, 3)
    # Orientation 6: the stored top left corner is the top right one of the upright picture.
    assert decoded[:7, 9:, 0].min() > 240
    assert decoded[9:].max() < 15


def test_an_unreadable_exif_block_is_passed_over() -> None:
    data = encode(Image.fromarray(noise()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode_image(data).shape == (12, 17, 3)


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_an_animation_gives_its_first_frame(kind: str, options: dict) -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode_image(data), np.asarray(frames[0]))


def test_a_picture_of_several_pictures_gives_its_first() -> None:
    frames = [Image.new("RGB", (16, 16), grey) for grey in ((200,) * 3, (20,) * 3)]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert np.abs(decode_image(data).astype(int) - 200).max() <= 1


# Damage


@pytest.mark.parametrize(
    ("kind", "options", "tolerant"),
    [
        # Other libraries set Pillow's LOAD_TRUNCATED_IMAGES for the whole process.
        ("JPEG", {}, False),
        ("JPEG", {}, True),
        ("JPEG", {"progressive": True}, False),
        ("JPEG", {"progressive": True}, True),
        ("JPEG", {"restart_marker_blocks": 1}, True),
        ("PNG", {}, False),
        ("PNG", {}, True),
        ("WEBP", {}, True),
        ("TIFF", {}, True),
        ("TIFF", {"compression": "tiff_lzw"}, True),
        ("PPM", {}, True),
    ],
)
def test_a_file_cut_anywhere_is_refused(
    kind: str, options: dict, tolerant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    data = encode(Image.fromarray(noise(24, 24)), kind, **options)
    decode_image(data)
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            decode_image(data[:length])


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_photo() -> None:
    data = encode(Image.fromarray(noise(64, 64)), "JPEG")
    thumbnail = encode(Image.fromarray(noise(8, 8)), "JPEG")
    segment = b"\xff\xed" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    with_thumbnail = data[:2] + segment + data[2:]
    np.testing.assert_array_equal(decode_image(with_thumbnail), decode_image(data))
    np.testing.assert_array_equal(decode_image(with_thumbnail + b"trailing bytes"), decode_image(data))
    with pytest.raises(DecodeError, match=CUT):
        decode_image(with_thumbnail[:-2])


def test_a_flipped_bit_in_a_png_is_found() -> None:
    data = bytearray(encode(Image.fromarray(noise()), "PNG"))
    data[data.index(b"IDAT") + 50] ^= 1
    with pytest.raises(DecodeError, match=CUT):
        decode_image(bytes(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_damage_never_raises_anything_else(kind: str) -> None:
    sound = encode(Image.fromarray(noise(20, 20)), kind)
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(150):
        data = bytearray(sound)
        for position in random.integers(0, len(data), 8):
            data[position // random.choice([1, 8])] = random.integers(256)
        try:
            assert decode_image(bytes(data)).dtype == np.uint8
        except DecodeError:
            refused += 1
    assert refused


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "file is empty"),
        (b"\0" * 100, UNKNOWN),
        (b"<html>not found</html>", UNKNOWN),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", UNKNOWN),
        (b"\xff\xd8\xff", UNKNOWN),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_image(data)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("side", "reason"), [(11, "11 x 11 pixels, the limit is 100"), (30, "more than 100 pixels")]
)
def test_decompression_bombs_are_refused(side: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow only warns up to twice its limit, and raises beyond.
    data = encode(Image.new("RGB", (side, side)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DecodeError, match=reason):
        decode_image(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode_image(data).shape == (side, side, 3)


def test_memory_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: Image.Image) -> None:
        raise MemoryError

    data = encode(Image.new("RGB", (4, 4)), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(DecodeError, match="not enough memory"):
        decode_image(data)


# Files


def test_read_image_gives_pixels_and_fingerprint(tmp_path: Path) -> None:
    data = encode(Image.fromarray(noise()), "PNG")
    file = tmp_path / "a.png"
    file.write_bytes(data)
    image = read_image(file)
    np.testing.assert_array_equal(image.pixels, noise())
    np.testing.assert_array_equal(decode_image(file), noise())
    assert image.sha1 == hashlib.sha1(data).hexdigest()


def test_file_problems_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    cases = {
        "absent.jpg": "file not found",
        "empty.jpg": "file is empty",
        "pipe.jpg": "is not a regular file",
        "nul\0.jpg": "path holds a NUL byte",
        "empty.jpg/inside.jpg": "file cannot be read: not a directory",
        "n" * 300: "file cannot be read: file name too long",
        "loop.jpg": "file cannot be read: too many levels of symbolic links",
        ".": "is a folder, not a file",
    }
    for name, reason in cases.items():
        with pytest.raises(DecodeError) as caught:
            read_image(tmp_path / name)
        assert str(caught.value) == reason

    monkeypatch.setattr("leamfast.datasets.decoding.MAX_FILE_BYTES", -1)
    with pytest.raises(DecodeError, match="file is larger than"):
        read_image(tmp_path / "empty.jpg")


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_bytes(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "a.jpg"
    file.write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(DecodeError, match="no permission to read the file"):
        read_image(file)


def test_threads_decode_and_leave_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    bad_exif = encode(Image.fromarray(noise()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    before = list(warnings.filters)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with ThreadPoolExecutor(8) as pool:
        shapes = {decoded.shape for decoded in pool.map(decode_image, [bad_exif] * 200)}
    assert shapes == {(12, 17, 3)}
    assert list(warnings.filters) == before
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_suffixes_are_lower_case_and_open() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


# Region masks


def test_mask_values_are_kept() -> None:
    values = np.arange(19, dtype=np.uint8).reshape(1, 19).repeat(3, axis=0)
    grey = encode(Image.fromarray(values), "PNG")
    np.testing.assert_array_equal(decode_label(grey), values)

    image = Image.fromarray(values).convert("P")
    image.putpalette(list(range(255, 255 - 57, -1)))
    np.testing.assert_array_equal(decode_label(encode(image, "PNG")), values)
    np.testing.assert_array_equal(decode_label(encode(image, "PNG", transparency=3)), values)
    assert decode_label(grey).dtype == np.uint8


@pytest.mark.parametrize(
    ("depth", "palette"),
    [(1, False), (2, False), (4, False), (8, False), (16, False), (1, True), (2, True), (4, True), (8, True)],
)
def test_mask_values_are_kept_at_every_bit_depth(depth: int, palette: bool) -> None:
    values = (np.arange(21).reshape(3, 7) % min(2**depth, 19)).astype(np.uint16)
    chunks = [(b"PLTE", bytes(range(3 * min(2**depth, 19))))] if palette else []
    np.testing.assert_array_equal(decode_label(png(values, depth, 3 if palette else 0, *chunks)), values)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_mask_may_say_that_it_does_not_know(depth: int) -> None:
    values = np.array([[255, 0, 18], [3, 255, 255]], np.uint16)
    np.testing.assert_array_equal(decode_label(png(values, depth, 0)), values)
    np.testing.assert_array_equal(decode_label(png(np.full((2, 2), 255), depth, 0)), np.full((2, 2), 255))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(Image.new("RGB", (3, 3)), "PNG"), "the mask has 3 channels, not one"),
        (
            encode(Image.new("L", (3, 3), 254), "PNG"),
            OTHER.format(254),
        ),
        (encode(Image.new("LA", (3, 3)), "PNG"), "the mask has 2 channels, not one"),
        (
            encode(Image.new("L", (3, 3), 19), "PNG"),
            OTHER.format(19),
        ),
        (
            png(np.full((2, 2), 300), 16, 0),
            OTHER.format(300),
        ),
        (encode(Image.new("L", (8, 8)), "JPEG"), "the mask is a JPEG file, not a PNG"),
        (encode(Image.new("L", (8, 8)), "PNG")[:-1], CUT),
        (b"", "file is empty"),
    ],
)
def test_wrong_masks_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_label(data)
    assert str(caught.value) == reason

"""Image files to arrays: every usable picture becomes uint8 RGB, every other one an error that says why.

Pillow decodes. Around it stand the checks that it leaves out: a JPEG or PNG cut anywhere is refused even
where its last rows happen to be there, 16-bit samples are scaled and not clipped, and nothing but raster
formats is opened.

Conventions:
    Pixels are those of the upright picture: an EXIF orientation is applied. A region mask is taken as it is
    stored, so it must be drawn on the upright picture, that is, have its width and height.
    Transparent pixels are laid on black, the value that the border of an aligned crop has.
    16-bit samples keep their high byte. Colour profiles are not applied. Animations give their first frame.
"""

import hashlib
import io
import re
import stat
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from leamfast.datasets.entry import Rect, Spans
from leamfast.faces.parse_names import UNKNOWN
from leamfast.faces.regions import REGIONS

__all__ = [
    "IMAGE_SUFFIXES",
    "DecodeError",
    "DecodedImage",
    "decode_image",
    "decode_label",
    "decode_part",
    "read_bytes",
    "read_image",
]

Pixels = NDArray[np.uint8]

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Suffixes, in lower case, of the files that a folder listing takes for images."""

# No JPEG 2000: a file that is cut off decodes to a blurred picture without an error.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_FILE_BYTES = 1 << 30

JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]", re.DOTALL)
JPEG_START, JPEG_END = 0xD8, 0xD9
PNG_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
PNG_DEPTH_OFFSET = 24
TIFF_BITS_PER_SAMPLE = 258
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodeError(ValueError):
    """A file gives no picture; the message is the reason in a few plain words, without the path."""


@dataclass(frozen=True)
class DecodedImage:
    """A picture and the fingerprint of the file that it came from.

    Attributes:
        pixels: upright picture, shape (H, W, 3), uint8, RGB.
        sha1: SHA-1 of the file's bytes, 40 hexadecimal digits.
    """

    pixels: Pixels
    sha1: str


def read_image(path: Path, spans: Spans = (), rect: Rect | None = None) -> DecodedImage:
    """Read a file once: its picture and the SHA-1 of its bytes.

    Args:
        path: the file.
        spans: where in the file the image lies; () is the whole file.
        rect: the part of the picture that is taken; None takes all of it.

    Raises:
        DecodeError: as `decode_image`; or a span reaches beyond the file, or the rect beyond the picture.
    """
    data = read_bytes(path, spans)
    return DecodedImage(decode_part(data, rect), hashlib.sha1(data, usedforsecurity=False).hexdigest())


def read_bytes(path: Path, spans: Spans = ()) -> bytes:
    """The bytes of an image: of the file, or of some spans of it, joined.

    Raises:
        DecodeError: they cannot be read, or a span reaches beyond the file.
    """
    return _read_spans(path, spans) if spans else _read_bytes(path)


def decode_part(data: bytes, rect: Rect | None) -> Pixels:
    """As `decode_image` of some bytes, and the part of the picture that is taken; None takes all of it.

    Raises:
        DecodeError: as `decode_image`; or the rect reaches beyond the picture.
    """
    pixels = decode_image(data)
    if rect is None:
        return pixels
    left, top, right, bottom = rect
    height, width = pixels.shape[:2]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise DecodeError(f"rect {left} {top} {right} {bottom} is not within the {width}x{height} picture")
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def decode_image(source: Path | bytes) -> Pixels:
    """Decode an image file.

    Args:
        source: path of the file, or its bytes.

    Returns:
        The upright picture, shape (H, W, 3), uint8, RGB, writable and contiguous.

    Raises:
        DecodeError: the file cannot be read, is empty, cut off, damaged, not an image, of a kind without an
            agreed range (32-bit or floating point) or over Pillow's limit on the number of pixels.
    """
    with _opened(source) as (image, _):
        rgb = _to_rgb(image)
        turn = UPRIGHT.get(_orientation(image))
        return np.array(rgb if turn is None else rgb.transpose(turn))


def decode_label(source: Path | bytes) -> Pixels:
    """Decode a region mask: a PNG whose samples, or palette indices, are indices of `REGIONS`.

    Args:
        source: path of the file, or its bytes.

    Returns:
        Region indices as stored (no orientation is applied), shape (H, W), uint8: 0..18, or `UNKNOWN` (255)
        where whoever made the mask could not tell.

    Raises:
        DecodeError: as `decode_image`; or the file is no PNG, has more than one channel, or another value.
    """
    with _opened(source) as (image, data):
        if image.format != "PNG":
            raise DecodeError(f"the mask is a {image.format} file, not a PNG")
        if image.mode not in ("1", "L", "P", "I", "I;16"):
            raise DecodeError(f"the mask has {len(image.getbands())} channels, not one")
        values = np.array(image).astype(np.int64)
        if image.mode == "L":
            # Pillow stretches 2- and 4-bit grey over 0..255: undo it.
            values //= {2: 85, 4: 17}.get(data[PNG_DEPTH_OFFSET], 1)
    known = values[values != UNKNOWN]
    if known.size and known.max() >= len(REGIONS):
        raise DecodeError(
            f"the mask holds the value {known.max()}, regions end at {len(REGIONS) - 1}, {UNKNOWN} is unknown"
        )
    return values.astype(np.uint8)


def _read_bytes(path: Path) -> bytes:
    """Bytes of a regular file; never waits on a pipe or a device."""
    with _readable(path) as size:
        if size > MAX_FILE_BYTES:
            raise DecodeError(f"file is larger than {MAX_FILE_BYTES >> 20} MiB")
        # Some files of /proc are regular by their own account, hold 0 bytes, and are waited on for ever.
        return path.read_bytes() if size else b""


def _read_spans(path: Path, spans: Spans) -> bytes:
    """Bytes of some spans of a regular file, joined."""
    with _readable(path) as size:
        if any(offset < 0 or length < 0 or offset + length > size for offset, length in spans):
            raise DecodeError("the image lies beyond the end of its file, which is cut off")
        if sum(length for _, length in spans) > MAX_FILE_BYTES:
            raise DecodeError(f"image is larger than {MAX_FILE_BYTES >> 20} MiB")
        parts = []
        with path.open("rb") as stream:
            for offset, length in spans:
                stream.seek(offset)
                parts.append(stream.read(length))
        return b"".join(parts)


@contextmanager
def _readable(path: Path) -> Iterator[int]:
    """The size of a regular file; whatever the system raises inside becomes a `DecodeError`."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise DecodeError("is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError("is not a regular file")
        yield status.st_size
    except DecodeError:
        raise
    except FileNotFoundError as exc:
        raise DecodeError("file not found") from exc
    except PermissionError as exc:
        raise DecodeError("no permission to read the file") from exc
    except OSError as exc:
        raise DecodeError(f"file cannot be read: {(exc.strerror or 'input/output error').lower()}") from exc
    except ValueError as exc:
        raise DecodeError("path holds a NUL byte") from exc


@contextmanager
def _opened(source: Path | bytes) -> Iterator[tuple[Image.Image, bytes]]:
    """The loaded first frame and the file's bytes; whatever Pillow raises inside becomes a `DecodeError`."""
    data = source if isinstance(source, bytes) else _read_bytes(source)
    if not data:
        raise DecodeError("file is empty")
    try:
        with _PILLOW_GATE, Image.open(io.BytesIO(data), formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise DecodeError(f"image has {image.width} x {image.height} pixels, the limit is {limit}")
            if not _is_complete(data, image.format):
                raise DecodeError("file is cut off or damaged")
            image.load()
            yield image, data
    except DecodeError:
        raise
    except UnidentifiedImageError as exc:
        raise DecodeError("not an image of a known format, or its header is damaged") from exc
    except Image.DecompressionBombError as exc:
        raise DecodeError(f"image has more than {Image.MAX_IMAGE_PIXELS} pixels, the limit") from exc
    except MemoryError as exc:
        raise DecodeError("not enough memory to decode the image") from exc
    except Exception as exc:
        # Damaged data make Pillow's decoders raise nearly anything: OSError, SyntaxError, struct.error, ...
        raise DecodeError("file is cut off or damaged") from exc


class _PillowGate:
    """Makes Pillow silent and strict while at least one thread decodes: both are settings of the process.

    It warns of damaged metadata, which is of no use here, and of bombs, which are refused instead. And where
    another library has set `LOAD_TRUNCATED_IMAGES`, it fills what a file lacks with grey.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.decoding = 0
        self.filters: warnings.catch_warnings[None] | None = None
        self.tolerant = False

    def __enter__(self) -> None:
        with self.lock:
            self.decoding += 1
            if self.decoding == 1:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self.tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.decoding -= 1
            if self.decoding == 0 and self.filters is not None:
                self.filters.__exit__(None, None, None)
                self.filters = None
                ImageFile.LOAD_TRUNCATED_IMAGES = self.tolerant


_PILLOW_GATE = _PillowGate()


def _is_complete(data: bytes, kind: str | None) -> bool:
    """Whether a JPEG or PNG reaches its end marker; other kinds are left to their decoders."""
    if kind == "PNG":
        return _png_is_complete(data)
    return _jpeg_is_complete(data) if kind in ("JPEG", "MPO") else True


def _jpeg_is_complete(data: bytes) -> bool:
    """Walk the segments, jumping over their contents (a thumbnail has an end marker of its own)."""
    position = 0
    while match := JPEG_MARKER.search(data, position):
        position, marker = match.end(), data[match.end() - 1]
        if marker == JPEG_END:
            return True
        if marker != JPEG_START:
            position += int.from_bytes(data[position : position + 2], "big")
    return False


def _png_is_complete(data: bytes) -> bool:
    """Walk the chunks up to IEND, with the checksums of those that carry the picture."""
    position = 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if end > len(data):
            return False
        checksum = int.from_bytes(data[end - 4 : end], "big")
        if kind in PNG_CRITICAL and zlib.crc32(data[position + 4 : end - 4]) != checksum:
            return False
        if kind == b"IEND":
            return True
        position = end
    return False


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none or the EXIF block is unreadable, as viewers do."""
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB, with transparent pixels laid on black."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _grey16_to_rgb(image)
    if image.mode in ("I", "F"):
        raise DecodeError("32-bit and floating-point pixels have no agreed range")
    if image.has_transparency_data:
        layer = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), layer).convert("RGB")
    return image.convert("RGB")


def _grey16_to_rgb(image: Image.Image) -> Image.Image:
    """16-bit grey to RGB by the high byte, as Pillow reads 16-bit colour; its own conversion may clip."""
    values = np.array(image).astype(np.int64)
    bits = getattr(image, "tag_v2", {}).get(TIFF_BITS_PER_SAMPLE, (16,))[0]
    transparent = image.info.get("transparency")
    if transparent is not None:
        values[values == transparent] = 0
    return Image.fromarray((values >> (bits - 8)).astype(np.uint8)).convert("RGB")

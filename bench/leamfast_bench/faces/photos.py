"""Different photos made out of some: mirrored, cropped, brighter or darker, and encoded anew."""

from pathlib import Path

import numpy as np
from PIL import Image

from leamfast.datasets.decoding import DecodeError, read_image
from leamfast.datasets.entry import Entry
from leamfast.datasets.formats import read_manifest
from leamfast.errors import RequestError

__all__ = ["write_photos"]

CROPPED, BRIGHTER, QUALITY = 0.03, 0.1, 92


def write_photos(data: Path, out: Path, number: int, seed: int = 0) -> None:
    """Write JPEG files into folders of people, each with the photos of a person of the data.

    Args:
        data: a data set of photos, as any command takes it.
        out: folder to make.
        number: of photos; the data's are used as often as needed, each time as those of other people.
        seed: the same one makes the same photos.

    Raises:
        RequestError: no photo of the data can be read.
    """
    manifest = read_manifest(data)
    people = {identity: index for index, identity in enumerate(manifest.identities)}
    rng = np.random.default_rng(seed)
    written = unreadable = 0
    while written < number:
        copy, place = divmod(written + unreadable, len(manifest.entries))
        entry = manifest.entries[place]
        try:
            pixels = _read(manifest.root, entry)
        except DecodeError as exc:
            unreadable += 1
            if not written and unreadable == len(manifest.entries):
                raise RequestError(f"--data must hold photos, got {data} with none that can be read") from exc
            continue
        file = out / f"{people[entry.identity]:04d}-{copy:03d}" / f"{place:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_changed(pixels, rng)).save(file, quality=QUALITY)
        written += 1


def _read(root: Path, entry: Entry) -> np.ndarray:
    return read_image(root / entry.path, entry.spans, entry.rect).pixels


def _changed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    top, bottom = (rng.random(2) * CROPPED * height).astype(int)
    left, right = (rng.random(2) * CROPPED * width).astype(int)
    part = pixels[top : height - bottom, left : width - right]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    light = 1 + BRIGHTER * (2 * rng.random() - 1)
    return np.clip(part * light, 0, 255).astype(np.uint8)

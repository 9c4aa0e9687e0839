"""Writing a synthetic data set to a folder: pictures, masks, and the manifest last."""

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from leamfast.datasets.synthetic.canvas import TEMPLATE_SIDE
from leamfast.datasets.synthetic.faces import FaceGenerator
from leamfast.errors import RequestError

__all__ = ["write_dataset"]


def write_dataset(
    out: Path,
    *,
    identities: int,
    images: int,
    seed: int = 0,
    plant: str | None = None,
    free: bool = False,
    size: int = TEMPLATE_SIDE,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write `identities` x `images` pictures and return the path of their manifest.

    `out/id0000/000.png` is a picture, `out/.labels/id0000/000.png` its mask (gray values are indices in
    `REGIONS`), `out/manifest.csv` has `path,identity,label` relative to `out` and the people's attributes.
    The manifest is written last: a folder without one is not finished.

    Args:
        out: folder to create, or an empty one.
        identities: number of people, at least 1.
        images: pictures of each, at least 1.
        seed: of the data set.
        plant: region that alone differs between people, see `FaceGenerator`.
        free: with a plant: all other regions are drawn anew for each picture.
        size: side of the pictures in pixels.
        progress: called after every person with the number of pictures just written.

    Raises:
        RequestError: an argument is out of range, or `out` holds something.
    """
    generator = FaceGenerator(seed=seed, size=size, plant=plant, free=free)
    if identities < 1:
        raise RequestError(f"identities must be at least 1, got {identities}: choose a positive number")
    if images < 1:
        raise RequestError(f"images must be at least 1, got {images}: choose a positive number")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"out must be a new or an empty folder, got {out}: remove it or name another")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise RequestError(f"out {out} cannot be made: {exc.strerror}") from exc

    rows: list[dict[str, str]] = []
    for identity in range(identities):
        name = f"id{identity:04d}"
        (out / name).mkdir(parents=True)
        (out / ".labels" / name).mkdir(parents=True)
        for image in range(images):
            face = generator.render(identity, image)
            path, label = f"{name}/{image:03d}.png", f".labels/{name}/{image:03d}.png"
            _write_png(out / path, np.ascontiguousarray(face.image[..., ::-1]))
            _write_png(out / label, face.label)
            attributes = {key: str(value).lower() for key, value in face.metadata.items()}
            rows.append({"path": path, "identity": name, "label": label, **attributes})
        if progress is not None:
            progress(images)

    manifest = out / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"could not write {path}: check the free space and the permissions of its folder")

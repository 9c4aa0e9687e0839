"""Region masks in files: those that the manifest names, or of a folder that mirrors the data set."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from leamfast.datasets.decoding import DecodeError, decode_label
from leamfast.datasets.entry import Entry
from leamfast.faces.regions import REGIONS

__all__ = ["MaskFiles"]


@dataclass(frozen=True)
class MaskFiles:
    """Masks of pictures, PNG files of indices of `REGIONS`, 255 where nothing is known.

    A mask is as wide and high as its upright picture, or, where the picture is a part of its file, as either.

    Attributes:
        root: folder that the manifest's paths start from.
        folder: holds the masks, each at the picture's path with the suffix .png; None: those of the manifest.
    """

    root: Path
    folder: Path | None = None

    @property
    def known(self) -> tuple[str, ...]:
        """The regions that masks can tell: all."""
        return REGIONS

    def read(self, entry: Entry, shape: tuple[int, int]) -> np.ndarray | None:
        """The mask of a picture (H, W), uint8; None where it has none.

        Args:
            entry: the picture.
            shape: its height and width.

        Raises:
            DecodeError: there should be one and it cannot be used; the message is the reason.
        """
        name, path = self._place(entry)
        if path is None:
            return None
        try:
            label = decode_label(path)
        except DecodeError as exc:
            raise DecodeError(f"{name}: {exc}; the image is used without it") from exc
        if entry.rect is not None and label.shape != shape:
            left, top, right, bottom = entry.rect
            label = label[top:bottom, left:right]
        if label.shape != shape:
            raise DecodeError(
                f"{name} is {label.shape[1]}x{label.shape[0]} where the image is "
                f"{shape[1]}x{shape[0]}; the image is used without it"
            )
        return label

    def _place(self, entry: Entry) -> tuple[str, Path | None]:
        if self.folder is None:
            return entry.label or "", None if entry.label is None else self.root / entry.label
        path = PurePosixPath(entry.path)
        if path.is_absolute():
            try:
                path = path.relative_to(self.root.as_posix())
            except ValueError:
                path = PurePosixPath(path.parent.name, path.name)
        try:
            name = (path / entry.inside if entry.inside else path).with_suffix(".png")
        except ValueError as exc:  # a name of dots and slashes alone
            raise DecodeError(f"{entry.name}: no mask can have this name") from exc
        if ".." in name.parts or name.is_absolute():
            raise DecodeError(f"{name}: the mask would lie outside its folder; the image is used without it")
        return str(name), self.folder / name

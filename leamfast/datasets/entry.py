"""An image of a data set: which file it lies in, where in that file, and whose it is.

Containers need no code of their own to be read: an image in a RecordIO file, a pickled verification set or a
tar is some spans of bytes of that file.
"""

from dataclasses import dataclass, field

__all__ = ["Entry", "Rect", "Spans"]

Spans = tuple[tuple[int, int], ...]
"""(offset, length) of the bytes of an image in its file, to be joined; empty for the whole file."""

Rect = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the upright picture, right and bottom exclusive."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a manifest.

    Attributes:
        path: its file, POSIX, relative to the manifest's root (or absolute, where it was written so).
        identity: the person's name.
        label: the region mask that belongs to the image, as `path`, or None.
        metadata: the further columns, by name.
        inside: its name in the file, where that holds several images.
        spans: where its bytes lie in the file.
        rect: the part of the picture that is taken, or None for all of it.
    """

    path: str
    identity: str
    label: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    inside: str = ""
    spans: Spans = ()
    rect: Rect | None = None

    @property
    def name(self) -> str:
        """What tells the image from all others of its data set: `path`, `path#inside` or `path@rect`."""
        place = f"{self.path}#{self.inside}" if self.inside else self.path
        return place if self.rect is None else f"{place}@{','.join(map(str, self.rect))}"

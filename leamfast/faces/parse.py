"""Face parsing: the region of every pixel of a photo, in the order of `leamfast.faces.regions.REGIONS`.

Parsing happens on the original photo, once, and its labels are warped (nearest) into each crop. Left and
right are the person's own: `re`, the right eye, lies left in the picture.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from leamfast.errors import RequestError
from leamfast.faces.parse_names import UNKNOWN
from leamfast.faces.selection import Detection

__all__ = ["PARSERS", "UNKNOWN", "Parser", "ParserSpec", "parse_parser"]

PARSERS = ("farl", "bisenet", "polygons", "masks", "labels", "none")
WITH_PATH = ("farl", "bisenet", "masks")
OF_FACES = ("farl", "bisenet", "polygons")


class Parser(Protocol):
    """What tells the regions of a face."""

    @property
    def known(self) -> tuple[str, ...]:
        """The regions that it can tell; the others never occur, wherever they are in the photo."""
        ...

    def parse(self, photo: NDArray[np.uint8], face: Detection) -> NDArray[np.uint8]:
        """Labels of a photo (H, W, 3), uint8, RGB, for one face: indices of `REGIONS`, (H, W), uint8.

        `UNKNOWN` where this parser cannot tell.

        Raises:
            FaceError: this face cannot be parsed; the message is the reason in a few plain words.
            RequestError: no face of this run can be.
        """
        ...


@dataclass(frozen=True)
class ParserSpec:
    """A parser as the user named it: cheap to check, to record and to send to a worker.

    Attributes:
        name: one of `PARSERS`.
        path: TorchScript archive of `farl` and `bisenet`, folder of `masks`, else None.
    """

    name: str
    path: Path | None = None

    @property
    def of_faces(self) -> bool:
        """Whether it looks at the photo and at the face that was found in it; else masks lie in files."""
        return self.name in OF_FACES

    def load(self, device: torch.device | str = "cpu") -> Parser:
        """The parser itself, on a device.

        Raises:
            RequestError: its weights are missing, others or not safe to run, or facer is not installed.
            ValueError: it is none of faces.
        """
        if not self.of_faces:
            raise ValueError(f"parser {self.name} has nothing to load")
        if self.name == "polygons":
            from leamfast.faces.parse_polygons import PolygonParser

            return PolygonParser()
        from leamfast.faces.parse_farl import BisenetParser, FarlParser

        if self.path is None:
            raise RequestError(f"parser {self.name} needs its weights: {self.name}=FILE")
        return (FarlParser if self.name == "farl" else BisenetParser)(self.path, device)


def parse_parser(text: str) -> ParserSpec:
    """Read a parser as written on the command line.

    `farl=FILE` and `bisenet=FILE`, with FILE a TorchScript archive; `polygons`, from the landmarks of
    detector dlib; `masks=DIR`, PNG files in a folder that mirrors the data set; `labels`, the masks that come
    with the data; `none`.

    Raises:
        RequestError: another parser, or no file where one is needed, or one that does not exist.
    """
    name, equals, place = text.partition("=")
    if name not in PARSERS or (name in WITH_PATH) != bool(place) or (equals and name not in WITH_PATH):
        raise RequestError(
            "parser must be farl=FILE or bisenet=FILE, with FILE a TorchScript archive, masks=DIR, with DIR "
            f"a folder of PNG files that mirrors the data set, or polygons, labels or none, got {text!r}"
        )
    if not place:
        return ParserSpec(name)
    path = Path(os.path.expanduser(place))
    if name == "masks" and not os.path.isdir(path):
        raise RequestError(f"parser must name a folder of masks, got {text!r}: there is no folder {place}")
    if name != "masks" and not os.path.isfile(path):
        raise RequestError(f"parser must name a file of weights, got {text!r}: there is no file {place}")
    return ParserSpec(name, path)

"""How the face of a picture is found and brought into crops."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from leamfast.errors import RequestError
from leamfast.faces.alignment import FaceError, paper_transform, similarity_transform
from leamfast.faces.cache import FaceCache, Picture, face_cache, weights_sha256
from leamfast.faces.detection import DetectorSpec, parse_detector
from leamfast.faces.selection import Detection, Detector, find_faces
from leamfast.models.devices import processor_name

__all__ = ["ALIGNMENTS", "Finding", "load_finding"]

ALIGNMENTS = ("arcface", "paper", "none")


@dataclass(frozen=True)
class Finding:
    """How faces are found and brought into crops.

    Attributes:
        detector: finds the face.
        align: `arcface`, five points onto the template, or `paper`, the whole face upright, which needs the
            landmarks of dlib.
        faces: `one`, or `largest` to use the largest face of several.
        cache: what is known of pictures that were searched before, and takes what is found.
    """

    detector: Detector
    align: str = "arcface"
    faces: str = "one"
    cache: FaceCache | None = None

    def find(self, images: Sequence[np.ndarray], pictures: Sequence[Picture]) -> list[Detection | FaceError]:
        """The face of each image, or why there is none that can be used: as `find_face`.

        Args:
            images: pixels, each (H, W, 3) uint8 RGB.
            pictures: where each comes from, which is what the cache goes by.
        """
        if self.cache is None:
            return find_faces(self.detector, images, self.faces)
        known = self.cache.look_up(pictures, self.faces)
        unknown = [number for number, face in enumerate(known) if face is None]
        if not unknown:
            return [face for face in known if face is not None]
        searched = find_faces(self.detector, [images[number] for number in unknown], self.faces)
        self.cache.keep([(pictures[i], face) for i, face in zip(unknown, searched, strict=True)], self.faces)
        news = iter(searched)
        return [next(news) if face is None else face for face in known]

    def transforms(self, face: Detection, sizes: Iterable[int]) -> dict[int, np.ndarray]:
        """Size -> transform (2, 3) from the picture to a crop of its face.

        Raises:
            FaceError: the face cannot be aligned.
        """
        if self.align == "paper":
            if face.landmarks is None:
                raise FaceError("the detector gives no landmarks")
            return {size: paper_transform(face.landmarks, size) for size in sizes}
        return {size: similarity_transform(face.points, size) for size in sizes}


def load_finding(detector: str, align: str, faces: str, device: str, threads: int) -> Finding:
    """Load a detector, with the user's cache of what it found before.

    One that this machine has loaded before, to the bit and with the same packages, is loaded at first use.

    Args:
        detector: `retinaface=FILE`, `dlib` or `dlib=FILE`.
        align: `arcface` or `paper`.
        faces: `one` or `largest`.
        device: where the detector computes.
        threads: with how many threads, on which low bits depend.

    Raises:
        RequestError: the detector cannot be loaded.
    """
    spec = parse_detector(detector)
    cache = face_cache(spec, f"{processor_name(device)}, {threads} threads")
    if cache is not None and cache.detector_loads:
        return Finding(_Later(spec, device), align, faces, cache)
    loaded = spec.load(device)
    if cache is not None:
        cache.keep_that_detector_loads()
    return Finding(loaded, align, faces, cache)


class _Later:
    """A detector that has been loaded before, to be loaded when a picture is not known: it takes seconds."""

    def __init__(self, spec: DetectorSpec, device: str) -> None:
        self._spec, self._device, self._sha256 = spec, device, weights_sha256(spec.weights)

    @cached_property
    def _loaded(self) -> Detector:
        if weights_sha256(self._spec.weights) != self._sha256:
            raise RequestError(
                f"detector {self._spec.weights} was replaced while the run went on: start anew"
            )
        return self._spec.load(self._device)

    def detect(self, image: np.ndarray) -> list[Detection]:
        return self._loaded.detect(image)

    def detect_many(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        return self._loaded.detect_many(images)

"""Planted sets: pictures of unseen people who differ in one region, with masks; and proof that they do."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from leamfast.datasets.synthetic import PLANTS, FaceGenerator
from leamfast.errors import RequestError
from leamfast.faces.regions import REGIONS, region_index

__all__ = ["FACIAL_PARTS", "PlantedSet", "check_planted", "planted_set"]

FACIAL_PARTS: Mapping[str, tuple[str, ...]] = {
    "brows": ("rb", "lb"),
    "eyes": ("re", "le"),
    "nose": ("nose",),
    "lips": ("ulip", "llip"),
    "mouth": ("imouth",),
    "ears": ("rr", "lr"),
    "skin": ("face",),
}
"""What the planted region competes with: the parts of every synthetic face, left and right together."""

FIRST = 2_000_000  # of the people that maps are scored on: neither trained on nor measured on in training
REACH = 4.0  # pixels of a 112-pixel face that paint of a region may lie beside its mask
PAIRS = 6


@dataclass(frozen=True, eq=False)
class PlantedSet:
    """Pictures of people who differ in one region.

    Attributes:
        region: the planted one.
        images: (N, H, W, 3) uint8 RGB.
        labels: (N, H, W) uint8.
        people: person of each picture, (N,).
    """

    region: str
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    people: NDArray[np.int64]

    @property
    def classes(self) -> tuple[int, ...]:
        """Classes of the planted region."""
        return tuple(region_index(name) for name in PLANTS[self.region])

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Where the planted region is, (N, H, W)."""
        return np.isin(self.labels, self.classes)

    @property
    def faces(self) -> NDArray[np.bool_]:
        """Where the facial parts are, (N, H, W)."""
        return np.isin(self.labels, [region_index(name) for names in FACIAL_PARTS.values() for name in names])

    @property
    def areas(self) -> NDArray[np.float64]:
        """Fraction of the pictures that each class covers, (19,)."""
        return np.bincount(self.labels.ravel(), minlength=len(REGIONS)) / self.labels.size


def planted_set(generator: FaceGenerator, people: int, images: int) -> PlantedSet:
    """Pictures of people that no model was trained on.

    Raises:
        RequestError: the generator plants nothing, or people differ elsewhere than it says.
    """
    if generator.plant is None:
        raise RequestError("a planted set needs a planted region, and this generator varies all of them")
    check_planted(generator)
    faces = [generator.render(FIRST + i, k) for i in range(people) for k in range(images)]
    return PlantedSet(
        generator.plant,
        np.stack([face.image for face in faces]),
        np.stack([face.label for face in faces]),
        np.repeat(np.arange(people), images),
    )


def check_planted(generator: FaceGenerator) -> None:
    """Raise a RequestError where people differ outside the planted region under one light and pose.

    Every pixel of pairs of people is compared, without the camera's blur and noise; paint may lie
    `REACH` pixels beside a mask (soft edges, eye shadow).
    """
    assert generator.plant is not None
    classes = [region_index(name) for name in PLANTS[generator.plant]]
    for pair in range(PAIRS):
        one, other = (
            generator.render(FIRST + pair + i, 0, blur=False, noise=False, nuisance=(FIRST, pair))
            for i in range(2)
        )
        planted = np.isin(one.label, classes) | np.isin(other.label, classes)
        distance = cv2.distanceTransform((~planted).astype(np.uint8), cv2.DIST_L2, 5)
        stray = (one.image != other.image).any(-1) & (distance > REACH * generator.size / 112)
        if stray.any():
            y, x = np.argwhere(stray)[0]
            raise RequestError(
                f"people {FIRST + pair} and {FIRST + pair + 1} must differ in {generator.plant} only, but "
                f"elsewhere {int(stray.sum())} of their pixels differ too, first row {y}, column {x}: "
                "a map cannot be blamed for finding them, so nothing is scored"
            )

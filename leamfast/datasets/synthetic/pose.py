"""Where a head's points land in the picture, and the five landmarks of the ArcFace template."""

import math
from dataclasses import dataclass

import numpy as np

from leamfast.datasets.synthetic.canvas import Array
from leamfast.datasets.synthetic.nuisance import Nuisance

__all__ = ["CENTRE", "EYE", "MOUTH_Y", "NOSE_TIP", "Pose"]

CENTRE = 56.0  # the head's axis of symmetry
EYE = (17.6, 51.6)  # distance from the axis, height
NOSE_TIP = 71.7
MOUTH_Y = 91.2  # 1.1 px above the template's: leaves room for neck and clothes below the chin


@dataclass(frozen=True)
class Pose:
    """A small turn of the head (shear by depth and a slight perspective), then a similarity."""

    yaw: float
    pitch: float
    cos: float  # of the rotation, times the scale
    sin: float
    shift: tuple[float, float]

    @classmethod
    def of(cls, nuisance: Nuisance) -> "Pose":
        """The pose of one picture."""
        cos, sin = math.cos(nuisance.rotation), math.sin(nuisance.rotation)
        x, y = nuisance.shift.tolist()
        return cls(nuisance.yaw, nuisance.pitch, nuisance.scale * cos, nuisance.scale * sin, (x, y))

    def place(self, points: Array, depth: float | Array = 0.0) -> Array:
        """Template coordinates (..., 2) of points of the frontal head `depth` pixels before its axis."""
        x, y = points[..., 0] - CENTRE, points[..., 1] - 72.0
        x = x - (0.06 / 56.0 * self.yaw) * x * x + self.yaw * depth
        y += self.pitch * depth
        placed = np.empty_like(points, np.float64)
        placed[..., 0] = self.cos * x - self.sin * y + (self.shift[0] + CENTRE)
        placed[..., 1] = self.sin * x + self.cos * y + (self.shift[1] + 72.0)
        return placed

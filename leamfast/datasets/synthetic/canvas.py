"""An anti-aliased canvas that paints colour and region labels together.

Coordinates are template pixels: the 112x112 ArcFace frame, pixel centres on integers, whatever the size of
the canvas. A shape's coverage is sampled 4x4 per pixel; it takes a pixel's label where it covers half of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import ceil, floor

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["TEMPLATE_SIDE", "Array", "Canvas", "Coverage", "ellipse", "mirror", "smooth"]

Array = NDArray[np.floating]

TEMPLATE_SIDE = 112
_SAMPLES = 4  # per pixel and axis
_SHIFT = 4  # fractional bits of cv2's fixed-point coordinates


@dataclass(frozen=True, eq=False)
class Coverage:
    """How much of each pixel of a box a shape covers.

    Attributes:
        box: left, top, right, bottom in canvas pixels, right and bottom exclusive.
        alpha: (bottom - top, right - left) float32 in [0, 1].
    """

    box: tuple[int, int, int, int]
    alpha: NDArray[np.float32]

    @property
    def empty(self) -> bool:
        """Whether the shape lies outside the canvas."""
        return self.alpha.size == 0

    def clipped(self, other: "Coverage") -> "Coverage":
        """The part inside `other`, which must have the same box."""
        return Coverage(self.box, self.alpha * other.alpha)


class Canvas:
    """A square picture under construction.

    Attributes:
        colour: (3, size, size) float32 RGB, 0 black, 1 white.
        label: (size, size) uint8 region indices.
    """

    def __init__(self, background: NDArray[np.float32]) -> None:
        self.colour = background
        self.size = background.shape[-1]
        self.scale = self.size / TEMPLATE_SIDE
        self.label = np.zeros((self.size, self.size), np.uint8)

    def coverage(
        self, shapes: Sequence[Array] | Array, *, width: float | None = None, within: Coverage | None = None
    ) -> Coverage:
        """Rasterise shapes.

        Args:
            shapes: one (n, 2) outline in template pixels, or several, (m, n, 2) or a list.
            width: draw them as open lines of this width in template pixels; None fills them.
            within: clip to this coverage.
        """
        outlines = [shapes] if isinstance(shapes, np.ndarray) and shapes.ndim == 2 else list(shapes)
        points = (np.concatenate(outlines) + 0.5) * self.scale  # pixel edges on integers
        box = (
            self._box(points, 0.0 if width is None else width * self.scale) if within is None else within.box
        )
        left, top, right, bottom = box
        rows, columns = bottom - top, right - left
        if rows <= 0 or columns <= 0:
            return Coverage(box, np.zeros((0, 0), np.float32))
        points -= (left, top)
        points *= _SAMPLES << _SHIFT
        points -= (1 << _SHIFT) / 2
        fixed = np.rint(points).astype(np.int32)
        ends = list(accumulate(len(outline) for outline in outlines))
        polygons = [fixed[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        fine = np.zeros((rows * _SAMPLES, columns * _SAMPLES), np.uint8)
        if width is None:
            cv2.fillPoly(fine, polygons, 255, cv2.LINE_8, _SHIFT)
        else:
            thickness = max(1, round(width * self.scale * _SAMPLES))
            cv2.polylines(fine, polygons, False, 255, thickness, cv2.LINE_8, _SHIFT)
        alpha = cv2.resize(fine, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
        alpha *= np.float32(1 / 255)
        drawn = Coverage(box, alpha)
        return drawn if within is None else drawn.clipped(within)

    def paint(
        self, shape: Coverage, colour: Array, *, region: int | None = None, opacity: float | Array = 1.0
    ) -> None:
        """Blend a colour over a shape; an opaque or see-through layer with a `region` takes the label.

        Args:
            shape: where to paint.
            colour: (3,) for the whole shape or (3, rows, columns) over its box.
            region: index in `REGIONS`, or None to keep the labels below.
            opacity: number or (rows, columns) over its box, 0 to 1.
        """
        if shape.empty:
            return
        left, top, right, bottom = shape.box
        below = self.colour[:, top:bottom, left:right]
        paint = np.asarray(colour, np.float32)
        if paint.ndim == 1:
            paint = paint[:, None, None]
        if isinstance(opacity, np.ndarray) or opacity != 1.0:
            below += (shape.alpha * np.asarray(opacity, np.float32)) * (paint - below)
        else:
            below += shape.alpha * (paint - below)
        if region is not None:
            self.label[top:bottom, left:right][shape.alpha >= 0.5] = region

    def grid(self, shape: Coverage) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Template coordinates of the pixel centres of a shape's box, x (1, columns) and y (rows, 1)."""
        left, top, right, bottom = shape.box
        x = (np.arange(left, right, dtype=np.float32) + np.float32(0.5)) / np.float32(self.scale)
        y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5)) / np.float32(self.scale)
        return x[None, :] - np.float32(0.5), y[:, None] - np.float32(0.5)

    def _box(self, points: Array, width: float) -> tuple[int, int, int, int]:
        margin = width / 2 + 1
        left, top = points.min(0).tolist()
        right, bottom = points.max(0).tolist()
        return (
            max(0, floor(left - margin)),
            max(0, floor(top - margin)),
            min(self.size, ceil(right + margin)),
            min(self.size, ceil(bottom + margin)),
        )


@cache
def _spline(count: int, steps: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Neighbours (count, 4) of a closed outline's points and Catmull-Rom weights (steps, 4)."""
    neighbours = (np.arange(count)[:, None] + np.array([-1, 0, 1, 2])) % count
    t = np.arange(steps) / steps
    weights = np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1
    )
    return neighbours, weights / 2


def smooth(points: Array, steps: int = 6) -> Array:
    """Closed Catmull-Rom curve through points (n, 2), as an outline (n * steps, 2)."""
    neighbours, weights = _spline(len(points), steps)
    return np.matmul(weights, points[neighbours]).reshape(-1, 2)


def mirror(half: Array, centre: float) -> Array:
    """Outline (2n, 2) from its half at x >= 0, top to bottom, mirrored about x = centre."""
    right = half + (centre, 0.0)
    left = half[::-1] * (-1.0, 1.0) + (centre, 0.0)
    return np.concatenate([right, left])


@cache
def _circle(count: int) -> Array:
    angle = np.arange(count) * (2 * np.pi / count)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def ellipse(x: float, y: float, a: float, b: float, *, power: float = 2.0, count: int = 28) -> Array:
    """Outline of the superellipse |dx / a|^power + |dy / b|^power = 1; 2 is an ellipse, more is boxier."""
    circle = _circle(count)
    if power != 2.0:
        circle = np.sign(circle) * np.abs(circle) ** (2 / power)
    return circle * (a, b) + (x, y)

"""What surrounds a face in a picture: the backdrop before it is painted, light and camera after."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from leamfast.datasets.synthetic.canvas import TEMPLATE_SIDE
from leamfast.datasets.synthetic.nuisance import Nuisance

__all__ = ["backdrop", "expose", "light"]


def _axes(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pixel centres from -1 to 1 over the picture, x (1, size) and y (size, 1)."""
    axis = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size)) - np.float32(1)
    return axis[None, :], axis[:, None]


def backdrop(nuisance: Nuisance, size: int) -> NDArray[np.float32]:
    """The background, (3, size, size) in [0, 1]: a smooth texture, for some with stripes."""
    coarse = np.ascontiguousarray(nuisance.backdrop.transpose(1, 2, 0), np.float32)
    picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1)
    strength, wavelength, angle, phase = nuisance.backdrop_stripes
    if strength > 0:
        x, y = _axes(size)
        turn = TEMPLATE_SIDE * np.pi / wavelength
        wave = np.sin(turn * (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y) + phase)
        picture = picture * (1 + strength * np.clip(3 * wave, -1, 1))[None]
    return np.clip(picture, 0, 1).astype(np.float32, order="C")


def light(colour: NDArray[np.float32], nuisance: Nuisance) -> None:
    """Multiply a picture (3, size, size), in place, by the light's colour, slope and cast shadow."""
    x, y = _axes(colour.shape[-1])
    field = np.exp(nuisance.light[0] * x + nuisance.light[1] * y)
    strength, angle, offset, softness = nuisance.shade
    if strength > 0:
        distance = (np.cos(angle) * x + np.sin(angle) * y) * (TEMPLATE_SIDE / 2) - offset
        field *= 1 - strength / (1 + np.exp(-distance * (4 / softness)))
    field *= nuisance.gain
    colour *= nuisance.temperature[:, None, None].astype(np.float32) * field.astype(np.float32)


def expose(
    colour: NDArray[np.float32], nuisance: Nuisance, rng: Generator, *, blur: bool, noise: bool
) -> NDArray[np.uint8]:
    """The picture a camera takes: soft shoulder, blur, sensor noise, 8 bits; (size, size, 3) RGB."""
    picture = np.ascontiguousarray(colour.transpose(1, 2, 0))
    bright = np.maximum(picture - np.float32(0.8), 0)
    picture -= bright * bright / (bright + np.float32(0.2))  # compresses highlights instead of clipping them
    if blur and nuisance.blur > 0.2:
        sigma = nuisance.blur * picture.shape[0] / TEMPLATE_SIDE
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    if noise:
        picture += np.float32(nuisance.noise) * rng.standard_normal(picture.shape, dtype=np.float32)
    picture *= 255
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)

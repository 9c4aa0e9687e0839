"""What stands in for the pixels of a support: a colour, a blurred or random picture, or what surrounds it.

    black    raw pixel value 0, as in the paper
    mean     the mean colour of the crop itself
    blur     the crop through a Gaussian of a sixteenth of its side
    noise    uniform random values, drawn by row
    inpaint  what surrounds the support, grown into it

All are made of raw pixel values, before the model's own preprocessing. Only `inpaint` depends on the support.

Reference: Telea, An image inpainting technique based on the fast marching method, Journal of Graphics Tools
9(1), 2004.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from leamfast.faces.alignment import import_opencv
from leamfast.models.preprocessing import Preprocessing

__all__ = ["Fill", "fill_of", "fill_pictures"]

BLUR = 16
"""Side of the crop over the standard deviation of the blur."""

RADIUS = 3
"""Pixels around the support that `inpaint` looks at."""

NOISE = 200
"""Of draws: that they are for noise."""


def fill_pictures(name: str, crops: np.ndarray, rows: Sequence[int], seed: int) -> np.ndarray:
    """Pictures whose pixels stand in for those of crops, wherever the support lies.

    Args:
        name: black, mean, blur or noise.
        crops: raw, (n, S, S, 3), uint8.
        rows: their row numbers, which decide the noise.
        seed: of the noise.

    Returns:
        (n, S, S, 3), uint8.
    """
    if name == "black":
        return np.zeros_like(crops)
    if name == "mean":
        colours = crops.mean(axis=(1, 2), keepdims=True).round().astype(np.uint8)
        return np.broadcast_to(colours, crops.shape)
    if name == "noise":
        shape = crops.shape[1:]
        drawn = [np.random.default_rng([NOISE, seed, row]).integers(0, 256, shape, np.uint8) for row in rows]
        return np.stack(drawn) if drawn else np.empty_like(crops)
    if name != "blur":
        raise ValueError(f"fill must be black, mean, blur or noise, got {name!r}")
    cv2 = import_opencv()
    blurred = [cv2.GaussianBlur(crop, (0, 0), crop.shape[0] / BLUR) for crop in crops]
    return np.stack(blurred) if blurred else np.empty_like(crops)


class Fill:
    """What stands in for pixels of a block of crops, as a model takes them; see `leam.occlusion.Filled`.

    Attributes:
        raw: as this, in raw values: (B, 3, S, S) float32.
    """

    def __init__(self, pictures: Tensor, preprocessing: Preprocessing) -> None:
        self.pictures, self.preprocessing = pictures, preprocessing
        self.preprocessed = preprocessing(pictures)

    def __call__(self, rows: Tensor, masks: Tensor) -> Tensor:
        return self.preprocessed[rows]

    def raw(self, rows: Tensor, masks: Tensor) -> Tensor:
        return self.pictures[rows].permute(0, 3, 1, 2).float()


class _Inpainted(Fill):
    """Crops with the support painted over from its rim, one by one on the CPU."""

    def __init__(self, crops: np.ndarray, device: torch.device, preprocessing: Preprocessing) -> None:
        self.crops, self.device, self.preprocessing = crops, device, preprocessing

    def __call__(self, rows: Tensor, masks: Tensor) -> Tensor:
        return self.preprocessing(self._painted(rows, masks))

    def raw(self, rows: Tensor, masks: Tensor) -> Tensor:
        return self._painted(rows, masks).permute(0, 3, 1, 2).float()

    def _painted(self, rows: Tensor, masks: Tensor) -> Tensor:
        cv2 = import_opencv()
        numbers, holes = rows.cpu().numpy(), masks.cpu().numpy().astype(np.uint8)

        def paint(place: int) -> np.ndarray:
            hole = holes[place]
            if hole.all():  # there is nothing around it
                return np.zeros_like(self.crops[0])
            return cv2.inpaint(self.crops[numbers[place]], hole, RADIUS, cv2.INPAINT_TELEA)

        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
            painted = list(pool.map(paint, range(len(numbers))))
        return torch.from_numpy(np.stack(painted)).to(self.device)


def fill_of(
    name: str,
    crops: np.ndarray,
    rows: Sequence[int],
    seed: int,
    preprocessing: Preprocessing,
    device: torch.device,
) -> Fill:
    """A fill of a block of crops, as a model takes them.

    Args:
        name: of `store.occlusion.FILLS`.
        crops: raw, (n, S, S, 3), uint8.
        rows: their row numbers.
        seed: of the noise.
        preprocessing: the model's.
        device: where it computes.
    """
    if name == "inpaint":
        return _Inpainted(crops, device, preprocessing)
    pictures = np.ascontiguousarray(fill_pictures(name, crops, rows, seed))
    return Fill(torch.from_numpy(pictures).to(device), preprocessing)

"""What occluding the support of each map costs: one HDF5 file a block of rows, written whole or not at all.

With f the evaluated model, x an image, r a reference and x' the image with a support filled,

    drop = cos(f(x), r) - cos(f(x'), r),   the mean over the references of x

Each pair of an evaluated and a source model has a group `/model/<evaluated>/occlusion/<source>`. Supports are
those of the source model's maps, or of a control that stands in for them. NaN stands where there is none.

Reference: arXiv 2509.17457, which blacks out the most important pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "CONTROLS",
    "COORDINATES",
    "DIMS",
    "FILLS",
    "OWN",
    "OcclusionArrays",
    "OcclusionAxes",
    "array_shape",
    "check_arrays",
]

OWN = "own"
"""The map itself, beside its controls."""

CONTROLS = (
    OWN,
    "random",
    "random-block-2",
    "random-block-4",
    "random-block-8",
    "shifted",
    "shifted-on-face",
    "other-identity",
    "population",
    "centre",
    "nearest-pose",
    "master-1",
    "master-2",
    "master-4",
    "master-8",
    "master",
)
"""What decides which pixels are filled, besides the map itself.

random: as many pixels, at random; random-block-B: in blocks of B x B
shifted: the same support moved round the picture at random; shifted-on-face: with its middle on the face
other-identity: the map of an image of another person, drawn at random
population: the mean of the sum-normalised maps of all other people
centre: the pixels nearest to the middle of the crop
nearest-pose: the map of that other image of the person whose pose is most alike, near-duplicates left out
master-K: the mean of the sum-normalised maps of K other images of the person; master: of all others
"""

FILLS = ("black", "mean", "blur", "noise", "inpaint")

COORDINATES = {
    "map": "maps",
    "percent": "percents",
    "control": "controls",
    "fill": "fills",
    "seed": "seeds",
    "step": "steps",
}
"""Dimension -> the attribute of `OcclusionAxes` that says what stands along it."""

DIMS = {
    "drop": ("row", "map", "percent", "control", "fill", "seed"),
    "references": ("row",),
    "cosine": ("row",),
    "support_size": ("row", "map", "percent"),
    "psnr": ("row", "map", "percent", "fill"),
    "ssim": ("row", "map", "percent", "fill"),
    "deletion": ("row", "map", "control", "fill", "step"),
    "insertion": ("row", "map", "control", "fill", "step"),
}
"""Dimensions of each of `OcclusionArrays`."""

SLACK = 1e-4
"""Of values that were rounded to float32: a cosine may exceed 1 by so much, and a drop 2."""

LIMITS = {
    "drop": (-2 - SLACK, 2 + SLACK),
    "references": (0, np.inf),
    "cosine": (-1 - SLACK, 1 + SLACK),
    "support_size": (0, np.finfo(np.float32).max),
    "psnr": (-SLACK, np.inf),
    "ssim": (-1 - SLACK, 1 + SLACK),
    "deletion": (-1 - SLACK, 1 + SLACK),
    "insertion": (-1 - SLACK, 1 + SLACK),
}
"""Between which values each array lies; the PSNR of an image that a fill does not change has no end."""


@dataclass(frozen=True)
class OcclusionAxes:
    """What the axes of `OcclusionArrays` stand for.

    Attributes:
        maps: taps of the source model, then `fused`.
        percents: of the area, ascending.
        controls: of `CONTROLS`, `own` first.
        fills: of `FILLS`.
        seeds: of the random draws.
        steps: percents at which curves were taken, from 0 to 100; empty without curves.

    Raises:
        ValueError: an axis that is empty, repeats itself, is out of order or names what there is not.
    """

    maps: tuple[str, ...]
    percents: tuple[float, ...]
    controls: tuple[str, ...]
    fills: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in COORDINATES.values():
            values = getattr(self, name)
            if not values and name != "steps":
                raise ValueError(f"{name} must name at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must not repeat themselves, got {values}")
        if not all(0 < percent <= 100 for percent in self.percents) or not _ascends(self.percents):
            raise ValueError(f"percents must ascend, above 0 and up to 100, got {self.percents}")
        if not all(0 <= step <= 100 for step in self.steps) or not _ascends(self.steps):
            raise ValueError(f"steps must ascend from 0 to 100, got {self.steps}")
        for name, known in (("controls", CONTROLS), ("fills", FILLS)):
            if strange := [value for value in getattr(self, name) if value not in known]:
                raise ValueError(f"{name} must be of {', '.join(known)}, got {strange[0]!r}")
        if self.controls[0] != OWN:
            raise ValueError(f"controls must begin with {OWN!r}, got {self.controls[0]!r}")
        if not all(0 <= seed < 2**63 for seed in self.seeds):
            raise ValueError(f"seeds must be whole numbers from 0 to 2**63 - 1, got {self.seeds}")


@dataclass(frozen=True, eq=False)
class OcclusionArrays:
    """What occlusion did to n consecutive rows, for one evaluated and one source model.

    Attributes:
        drop: mean over the row's references, (n, map, percent, control, fill, seed) float32; NaN where the
            row has no map or the control none. Controls without a draw have the same value for every seed.
        references: how many references the mean is over, (n,) int32; 0 where the row has none.
        cosine: mean of cos(f(x), r) over them, (n,) float32.
        support_size: pixels of the own support in the crop of the evaluated model, (n, map, percent) float32:
            under `each` the mean over the maps of single references.
        psnr, ssim: of the image with its own support filled against the image itself, in dB of 255 and from
            -1 to 1, (n, map, percent, fill) float32; None where only one fill was asked for.
        deletion, insertion: mean of cos(f(x'), r) over the references while the pixels are filled, or come
            back, in the order of the map, (n, map, control, fill, step) float32; None without curves.
            NaN for controls and fills that have none.
    """

    drop: np.ndarray
    references: np.ndarray
    cosine: np.ndarray
    support_size: np.ndarray
    psnr: np.ndarray | None = None
    ssim: np.ndarray | None = None
    deletion: np.ndarray | None = None
    insertion: np.ndarray | None = None

    def by_name(self) -> dict[str, np.ndarray]:
        """Those arrays that there are, by name."""
        return {name: values for name in DIMS if (values := getattr(self, name)) is not None}


def array_shape(axes: OcclusionAxes, name: str, rows: int) -> tuple[int, ...]:
    """Shape of one of `OcclusionArrays` of so many rows."""
    return rows, *(len(getattr(axes, COORDINATES[dim])) for dim in DIMS[name][1:])


def check_arrays(axes: OcclusionAxes, arrays: OcclusionArrays, rows: int) -> None:
    """Raise a ValueError where arrays do not go with their axes, or hold what cannot be.

    Args:
        axes: what the axes of the arrays stand for.
        arrays: what was found.
        rows: how many rows they must have.
    """
    there = arrays.by_name()
    for one, other in (("psnr", "ssim"), ("deletion", "insertion")):
        if (one in there) != (other in there):
            raise ValueError(f"{one} and {other} must both be there or both be None")
    if ("deletion" in there) != bool(axes.steps):
        raise ValueError("deletion and insertion must be there where there are steps, and only there")
    for name, values in there.items():
        shape = array_shape(axes, name, rows)
        if values.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {values.shape}")
        dtype = np.dtype(np.int32 if name == "references" else np.float32)
        if values.dtype != dtype:
            raise ValueError(f"{name} must be {dtype}, got {values.dtype}")
        low, high = LIMITS[name]
        if (strange := values[(values < low) | (values > high)]).size:
            either = "NaN or " if dtype.kind == "f" else ""
            raise ValueError(f"{name} must be {either}from {low:g} to {high:g}, got {strange[0]:g}")
    alone = arrays.references == 0
    for name in ("drop", "cosine"):
        if not np.isnan(there[name][alone]).all():
            raise ValueError(f"{name} must be NaN for rows without references")


def _ascends(values: Sequence[float]) -> bool:
    return all(low < high for low, high in zip(values, values[1:], strict=False))

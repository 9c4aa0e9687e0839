"""What a synthetic person is made of: one record of parameters for each region.

Lengths are template pixels (the 112x112 ArcFace frame), colours RGB in [0, 1].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Brow", "Cloth", "Colour", "Ear", "EarRings", "Eye", "Face", "Glasses", "Hair", "Hat", "Head", "Identity",
    "Lip", "Necklace", "Nose",
]  # fmt: skip

Colour = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Head:
    """Skull and skin: what the other regions are anchored to; never planted."""

    half_width: float
    neck: float
    tone: str
    skin: Colour


@dataclass(frozen=True, eq=False)
class Face:
    """Outline below the cheekbones and what is on the skin."""

    cheek: float
    jaw: float
    chin_width: float
    chin: float
    tint: Colour
    blush: float
    blush_colour: Colour
    spots: NDArray[np.float64]  # (n, 3): x, y, radius
    spot_strength: float
    beard: str
    beard_colour: Colour
    beard_width: float


@dataclass(frozen=True, eq=False)
class Eye:
    """One eye; x grows outwards."""

    x: float
    y: float
    half_width: float
    upper: float
    lower: float
    roundness: float
    tilt: float
    colour_name: str
    iris: Colour
    iris_radius: float
    pupil: float
    lash: float
    lash_colour: Colour
    shadow: float
    shadow_colour: Colour


@dataclass(frozen=True, eq=False)
class Brow:
    """One brow; x grows outwards."""

    inner: float
    length: float
    y: float
    thickness: float
    taper: float
    arch: float
    peak: float
    tilt: float
    colour: Colour


@dataclass(frozen=True, eq=False)
class Nose:
    """Bridge, wings and tip, and their shading relative to the skin."""

    length: float
    bridge: float
    bump: float
    wings: float
    wing_height: float
    tip: float
    nostril: float
    tint: Colour
    edge: float
    shine: float
    shine_width: float
    spots: NDArray[np.float64]  # (n, 3): across and down as shares of the nose, radius
    spot_colour: Colour


@dataclass(frozen=True, eq=False)
class Lip:
    """One lip; thickness grows away from the mouth line."""

    half_width: float
    thickness: float
    bow: float
    fullness: float
    colour: Colour
    shine: float


@dataclass(frozen=True, eq=False)
class Ear:
    """One ear; x grows outwards."""

    out: float
    y: float
    a: float
    b: float
    tilt: float
    lobe: float
    tint: Colour
    fold: float


@dataclass(frozen=True, eq=False)
class Hair:
    """Hair on and behind the head."""

    style: str
    colour_name: str
    colour: Colour
    volume: float
    line: float
    side: float
    part: float
    shine: float
    strand_tone: float
    strands: NDArray[np.float64]  # (n, 3): angle along the head, start, end


@dataclass(frozen=True, eq=False)
class Glasses:
    """Frame and lenses."""

    power: float
    a: float
    b: float
    x: float
    width: float
    colour: Colour
    lens: Colour
    opacity: float


@dataclass(frozen=True, eq=False)
class Hat:
    """Crown, and brim, visor or cuff."""

    style: str
    rim: float
    height: float
    colour: Colour
    band: Colour
    stripes: float


@dataclass(frozen=True, eq=False)
class EarRings:
    """A pair of ear rings."""

    style: str
    size: float
    colour: Colour


@dataclass(frozen=True, eq=False)
class Necklace:
    """A chain, a row of pearls or a chain with a pendant."""

    style: str
    drop: float
    width: float
    colour: Colour
    gem: Colour


@dataclass(frozen=True, eq=False)
class Cloth:
    """What is worn; of the picture, not of the person, unless planted."""

    neckline: str
    shoulder: float
    colour: Colour
    second: Colour
    stripes: float
    angle: float


@dataclass(frozen=True, eq=False)
class Identity:
    """A synthetic person; the regions that are None are not worn (or, for cloth, left to the picture)."""

    head: Head
    face: Face
    eyes: tuple[Eye, Eye]  # the person's right (image left), left
    brows: tuple[Brow, Brow]
    nose: Nose
    upper_lip: Lip
    lower_lip: Lip
    ears: tuple[Ear, Ear]
    hair: Hair
    glasses: Glasses | None
    hat: Hat | None
    ear_rings: EarRings | None
    necklace: Necklace | None
    cloth: Cloth | None

    @property
    def metadata(self) -> dict[str, str | bool]:
        """Columns for stratified analysis."""
        return {
            "glasses": self.glasses is not None,
            "hat": self.hat is not None,
            "ear_rings": self.ear_rings is not None,
            "necklace": self.necklace is not None,
            "beard": self.face.beard,
            "hair": self.hair.style,
            "hair_colour": self.hair.colour_name,
            "eye_colour": self.eyes[0].colour_name,
            "skin": self.head.tone,
        }

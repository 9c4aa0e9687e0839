"""Drawing synthetic people: each region's parameters from a stream of their own.

So a planted data set can share all regions but one.
"""

from functools import lru_cache

import numpy as np
from numpy.random import Generator

from leamfast.datasets.synthetic.nuisance import draw_cloth, pick, vivid
from leamfast.datasets.synthetic.planting import PLANTS, check_plant, embolden
from leamfast.datasets.synthetic.traits import (
    Brow,
    Colour,
    Ear,
    EarRings,
    Eye,
    Face,
    Glasses,
    Hair,
    Hat,
    Head,
    Identity,
    Lip,
    Necklace,
    Nose,
)

__all__ = ["draw_identity"]

SKIN = {
    "very-light": (0.97, 0.85, 0.77),
    "light": (0.93, 0.77, 0.66),
    "medium": (0.85, 0.66, 0.52),
    "tan": (0.73, 0.53, 0.39),
    "brown": (0.56, 0.38, 0.27),
    "dark": (0.41, 0.27, 0.20),
}
HAIR_COLOURS = {
    "black": (0.09, 0.08, 0.09),
    "dark-brown": (0.22, 0.14, 0.10),
    "brown": (0.38, 0.24, 0.15),
    "auburn": (0.47, 0.20, 0.12),
    "ginger": (0.76, 0.40, 0.16),
    "blond": (0.86, 0.70, 0.40),
    "grey": (0.60, 0.60, 0.61),
    "dyed-blue": (0.24, 0.36, 0.62),
    "dyed-pink": (0.80, 0.40, 0.58),
}
NATURAL = tuple(HAIR_COLOURS)[:7]
HAIR_STYLES = ("cropped", "short", "parted", "spiky", "fringe", "curly", "bob", "long", "bald")
EAR_SHOWING = ("cropped", "short", "parted", "spiky")
EYE_COLOURS = {
    "brown": (0.36, 0.21, 0.11),
    "hazel": (0.50, 0.38, 0.16),
    "green": (0.30, 0.50, 0.26),
    "blue": (0.26, 0.48, 0.74),
    "grey": (0.48, 0.56, 0.60),
    "black": (0.14, 0.10, 0.09),
}
BEARDS = ("none", "stubble", "full", "goatee", "moustache")
GLASSES_SHAPES = {"round": 2.0, "oval": 2.4, "square": 4.5, "rectangle": 6.0}
HAT_STYLES = ("beanie", "cap", "brimmed")
EAR_RING_STYLES = ("stud", "hoop", "drop")
NECKLACE_STYLES = ("chain", "pearls", "pendant")
METALS = ((0.92, 0.74, 0.28), (0.82, 0.84, 0.88), (0.85, 0.55, 0.42))


def _near(rng: Generator, colour: object, spread: float) -> Colour:
    """The colour with its brightness and each channel jittered."""
    jitter = 1 + spread * rng.uniform(-1, 1) + 0.5 * spread * rng.uniform(-1, 1, 3)
    return np.clip(np.asarray(colour, np.float64) * jitter, 0.02, 1.0)


def _hair_like(rng: Generator, hair: Hair | None) -> Colour:
    """Colour of brows and beard: mostly the hair's, any natural one where they must not depend on it."""
    natural = np.array(HAIR_COLOURS[NATURAL[int(rng.integers(len(NATURAL)))]])
    alike = rng.uniform() < 0.85
    return hair.colour if hair is not None and alike and hair.colour_name in NATURAL else natural


def _draw_head(rng: Generator) -> Head:
    tone = pick(rng, SKIN)
    return Head(rng.uniform(37.5, 41.5), rng.uniform(16.5, 21.5), tone, _near(rng, SKIN[tone], 0.06))


def _draw_face(rng: Generator, hair: Hair | None) -> Face:
    count = int(rng.choice([0, 1, 2, 16, 28], p=[0.3, 0.2, 0.15, 0.2, 0.15]))
    spots = np.empty((count, 3))
    if count <= 2:  # moles
        angle = rng.uniform(0.15, np.pi - 0.15, count) * rng.choice([-1, 1], count)
        spots[:, 0] = 56 + 25 * np.sin(angle)
        spots[:, 1] = 74 + 20 * np.cos(angle)
        spots[:, 2] = rng.uniform(0.9, 1.6, count)
    else:  # freckles over the cheeks
        side = rng.choice([-1, 1], count)
        spots[:, 0] = 56 + side * rng.uniform(10, 29, count)
        spots[:, 1] = rng.uniform(61, 76, count)
        spots[:, 2] = rng.uniform(0.35, 0.75, count)
    beard = _near(rng, _hair_like(rng, hair), 0.12)
    return Face(
        cheek=rng.uniform(0.93, 1.03),
        jaw=rng.uniform(0.68, 0.93),
        chin_width=rng.uniform(0.26, 0.54),
        chin=rng.uniform(102.0, 104.8),
        tint=_near(rng, (1.0, 1.0, 1.0), 0.05),
        blush=rng.uniform(0, 0.5) * (rng.uniform() < 0.7),
        blush_colour=_near(rng, (0.86, 0.36, 0.34), 0.15),
        spots=spots,
        spot_strength=rng.uniform(0.35, 0.65) if count > 2 else rng.uniform(0.6, 0.85),
        beard=str(rng.choice(BEARDS, p=[0.66, 0.1, 0.1, 0.07, 0.07])),
        beard_colour=beard,
        beard_width=rng.uniform(0.0, 1.0),
    )


def _draw_eye(rng: Generator) -> Eye:
    colour = pick(rng, EYE_COLOURS)
    return Eye(
        x=rng.uniform(-2.2, 2.2),
        y=rng.uniform(-1.4, 1.4),
        half_width=rng.uniform(7.0, 9.8),
        upper=rng.uniform(3.4, 5.9),
        lower=rng.uniform(1.8, 3.6),
        roundness=rng.uniform(1.7, 2.8),
        tilt=rng.uniform(-1.8, 2.2),
        colour_name=colour,
        iris=_near(rng, EYE_COLOURS[colour], 0.2),
        iris_radius=rng.uniform(3.1, 4.5),
        pupil=rng.uniform(0.36, 0.52),
        lash=rng.uniform(0.7, 2.0),
        lash_colour=rng.uniform(0.04, 0.22) * np.array([1.1, 0.9, 0.8]),
        shadow=max(0.0, rng.uniform(-0.5, 0.65)),
        shadow_colour=vivid(rng) * 0.8,
    )


def _draw_brow(rng: Generator, hair: Hair | None) -> Brow:
    return Brow(
        inner=rng.uniform(6.5, 11.0),
        length=rng.uniform(15.0, 21.0),
        y=rng.uniform(40.2, 43.0),
        thickness=rng.uniform(1.5, 4.6),
        taper=rng.uniform(0.3, 0.85),
        arch=rng.uniform(0.2, 4.2),
        peak=rng.uniform(0.4, 0.75),
        tilt=rng.uniform(-1.8, 2.0),
        colour=_near(rng, 0.9 * _hair_like(rng, hair), 0.2),
    )


def _draw_nose(rng: Generator) -> Nose:
    tint = (
        np.array([1.0, 1.0, 1.0])
        - rng.uniform(-0.07, 0.25)
        - np.array([0.0, 1.0, 1.0]) * rng.uniform(0, 0.32)
    )
    return Nose(
        spots=np.empty((0, 3)),
        spot_colour=np.zeros(3),
        length=rng.uniform(-2.3, 2.3),
        bridge=rng.uniform(2.0, 5.2),
        bump=rng.uniform(-0.8, 2.2),
        wings=rng.uniform(6.2, 12.4),
        wing_height=rng.uniform(-1.2, 1.2),
        tip=rng.uniform(0.0, 3.0),
        nostril=rng.uniform(0.8, 2.1),
        tint=tint,
        edge=rng.uniform(0.08, 0.34),
        shine=rng.uniform(0.0, 0.35),
        shine_width=rng.uniform(0.15, 0.5),
    )


def _draw_lip(rng: Generator) -> Lip:
    red = np.array([rng.uniform(0.45, 0.88), rng.uniform(0.16, 0.50), rng.uniform(0.18, 0.52)])
    return Lip(
        half_width=rng.uniform(12.6, 17.2),
        thickness=rng.uniform(2.0, 5.2),
        bow=rng.uniform(0.0, 1.9),
        fullness=rng.uniform(1.4, 3.4),
        colour=red,
        shine=rng.uniform(0.0, 0.35),
    )


def _draw_ear(rng: Generator) -> Ear:
    return Ear(
        out=rng.uniform(0.0, 3.4),
        y=rng.uniform(54.5, 60.0),
        a=rng.uniform(4.8, 7.2),
        b=rng.uniform(7.5, 12.0),
        tilt=rng.uniform(-0.1, 0.35),
        lobe=rng.uniform(0.35, 1.0),
        tint=np.array([1.0, 0.96, 0.95]) - rng.uniform(0.0, 0.2) * np.array([0.3, 1.0, 1.0]),
        fold=rng.uniform(0.12, 0.4),
    )


def _draw_hair(rng: Generator, styles: tuple[str, ...]) -> Hair:
    colour = pick(rng, HAIR_COLOURS)
    strands = np.stack(
        [rng.uniform(-1, 1, 18), rng.uniform(0.0, 0.35, 18), rng.uniform(0.7, 1.2, 18)], axis=1
    )
    return Hair(
        style=pick(rng, styles),
        colour_name=colour,
        colour=_near(rng, HAIR_COLOURS[colour], 0.18),
        volume=rng.uniform(0.0, 1.0),
        line=rng.uniform(-2.5, 3.0),
        side=rng.uniform(0.0, 1.0),
        part=rng.uniform(-0.7, 0.7),
        shine=rng.uniform(0.05, 0.35),
        strand_tone=rng.uniform(0.15, 0.4) * rng.choice([-1, 1]),
        strands=strands,
    )


def _draw_glasses(rng: Generator) -> Glasses:
    dark = rng.uniform() < 0.3
    return Glasses(
        power=GLASSES_SHAPES[pick(rng, GLASSES_SHAPES)],
        a=rng.uniform(11.0, 14.0),
        b=rng.uniform(7.6, 11.6),
        x=rng.uniform(-0.6, 1.4),
        width=rng.uniform(1.0, 2.8),
        colour=vivid(rng) if rng.uniform() < 0.5 else np.full(3, rng.uniform(0.04, 0.25)),
        lens=vivid(rng) * (0.4 if dark else 1.0),
        opacity=rng.uniform(0.55, 0.85) if dark else rng.uniform(0.05, 0.22),
    )


def _draw_hat(rng: Generator) -> Hat:
    return Hat(
        pick(rng, HAT_STYLES),
        rng.uniform(26, 31),
        rng.uniform(0, 1),
        vivid(rng),
        vivid(rng),
        rng.uniform(-1, 1),
    )


def _draw_ear_rings(rng: Generator) -> EarRings:
    colour = METALS[int(rng.integers(3))] if rng.uniform() < 0.5 else vivid(rng)
    return EarRings(pick(rng, EAR_RING_STYLES), rng.uniform(0, 1), _near(rng, colour, 0.1))


def _draw_necklace(rng: Generator) -> Necklace:
    colour = METALS[int(rng.integers(3))] if rng.uniform() < 0.6 else vivid(rng)
    style = pick(rng, NECKLACE_STYLES)
    return Necklace(style, rng.uniform(0, 1), rng.uniform(1.1, 2.0), _near(rng, colour, 0.1), vivid(rng))


@lru_cache(maxsize=4096)
def draw_identity(
    seed: int, identity: int, plant: str | None = None, rest: tuple[int, int] | None = None
) -> Identity:
    """The person number `identity`: a pure function of its arguments.

    With `plant`, every region outside it comes from a draw that all identities of the seed share (or, given
    `rest`, from the draw of that (identity, image)), and glasses, hat, ear rings and necklace are worn by
    everyone where planted, by no one elsewhere; the planted region is drawn more boldly.
    """
    check_plant(plant)
    planted = None if plant is None else PLANTS[plant]

    def stream(number: int, region: str) -> Generator:
        if planted is None or region in planted:
            return np.random.default_rng([seed, 1, number, identity + 1])
        return np.random.default_rng([seed, 1, number, 0] if rest is None else [seed, 3, number, *rest])

    def worn(number: int, region: str, probability: float) -> Generator | None:
        rng = stream(number, region)
        wears = rng.uniform() < probability
        return rng if (wears if planted is None else region in planted) else None

    styles: tuple[str, ...] = (*HAIR_STYLES[:-1], *HAIR_STYLES)  # the bald are half as many
    if planted is not None:
        styles = HAIR_STYLES[:-1] if "hair" in planted else EAR_SHOWING
    hair = _draw_hair(stream(8, "hair"), styles)
    like = hair if planted is None else None
    glasses, hat = worn(10, "eyeg", 0.25), worn(11, "hat", 0.16)
    ear_rings, necklace = worn(12, "earr", 0.25), worn(13, "neck_l", 0.3)
    person = Identity(
        head=_draw_head(stream(1, "head")),
        face=_draw_face(stream(2, "face"), like),
        eyes=(_draw_eye(stream(3, "re")), _draw_eye(stream(3, "le"))),
        brows=(_draw_brow(stream(4, "rb"), like), _draw_brow(stream(4, "lb"), like)),
        nose=_draw_nose(stream(5, "nose")),
        upper_lip=_draw_lip(stream(6, "ulip")),
        lower_lip=_draw_lip(stream(6, "llip")),
        ears=(_draw_ear(stream(7, "rr")), _draw_ear(stream(7, "lr"))),
        hair=hair,
        glasses=None if glasses is None else _draw_glasses(glasses),
        hat=None if hat is None else _draw_hat(hat),
        ear_rings=None if ear_rings is None else _draw_ear_rings(ear_rings),
        necklace=None if necklace is None else _draw_necklace(necklace),
        cloth=draw_cloth(stream(9, "cloth")) if planted is not None and "cloth" in planted else None,
    )
    if planted is None:
        return person
    return embolden(person, planted, lambda number: np.random.default_rng([seed, 1, number, identity + 1]))

"""Planted data sets: people who differ in one region only, and there more boldly than elsewhere.

One region has to carry the whole identity through light, pose, blur and noise. So its colours are free of
what is natural and its shapes span a wider range than in data sets where every region differs.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from leamfast.datasets.synthetic.nuisance import vivid
from leamfast.datasets.synthetic.traits import Brow, Colour, Ear, Eye, Face, Hair, Identity, Lip, Nose
from leamfast.errors import RequestError

__all__ = ["PLANTS", "check_plant", "embolden"]

# Planted name -> the regions that then carry the identity.
PLANTS: dict[str, tuple[str, ...]] = {
    **{
        name: (name,)
        for name in (
            "face", "cloth", "rr", "lr", "rb", "lb", "re", "le", "nose", "llip", "ulip", "hair", "eyeg",
            "hat", "earr", "neck_l",
        )
    },
    "eyes": ("re", "le"),
    "brows": ("rb", "lb"),
    "lips": ("llip", "ulip"),
    "ears": ("rr", "lr"),
}  # fmt: skip


def check_plant(plant: str | None) -> None:
    """Raise a RequestError unless `plant` is None or a name in `PLANTS`."""
    if plant is not None and plant not in PLANTS:
        raise RequestError(
            f"plant must be one of {', '.join(PLANTS)}, got {plant!r}: "
            "the other regions cannot carry an identity, choose one of these"
        )


def embolden(person: Identity, planted: tuple[str, ...], stream: Callable[[int], Generator]) -> Identity:
    """The person with every planted region drawn from its wider range.

    Args:
        person: as drawn for any data set.
        planted: regions that carry the identity.
        stream: generator of the person's draws by number; a pair (both eyes, both lips, ...) shares one,
            so that it matches.
    """
    right_eye, left_eye = person.eyes
    right_brow, left_brow = person.brows
    right_ear, left_ear = person.ears
    return replace(
        person,
        face=_face(person.face, stream(20)) if "face" in planted else person.face,
        eyes=(
            _eye(right_eye, stream(21)) if "re" in planted else right_eye,
            _eye(left_eye, stream(21)) if "le" in planted else left_eye,
        ),
        brows=(
            _brow(right_brow, stream(22)) if "rb" in planted else right_brow,
            _brow(left_brow, stream(22)) if "lb" in planted else left_brow,
        ),
        nose=_nose(person.nose, stream(23)) if "nose" in planted else person.nose,
        upper_lip=_lip(person.upper_lip, stream(24)) if "ulip" in planted else person.upper_lip,
        lower_lip=_lip(person.lower_lip, stream(24)) if "llip" in planted else person.lower_lip,
        ears=(
            _ear(right_ear, stream(25)) if "rr" in planted else right_ear,
            _ear(left_ear, stream(25)) if "lr" in planted else left_ear,
        ),
        hair=_hair(person.hair, stream(26)) if "hair" in planted else person.hair,
    )


def _tint(rng: Generator, depth: float) -> Colour:
    """What the skin's colour is multiplied by: any hue, never brighter than the skin."""
    return 1 - depth * rng.uniform(0, 1, 3)


def _face(face: Face, rng: Generator) -> Face:
    return replace(
        face,
        tint=_tint(rng, 0.3),
        blush=rng.uniform(0.0, 0.7),
        blush_colour=vivid(rng),
        beard_colour=vivid(rng),
    )


def _eye(eye: Eye, rng: Generator) -> Eye:
    return replace(
        eye,
        colour_name="vivid",
        iris=vivid(rng),
        shadow=rng.uniform(0.0, 0.8),
        shadow_colour=vivid(rng),
        lash_colour=0.5 * vivid(rng),
        lash=rng.uniform(0.7, 2.4),
    )


def _brow(brow: Brow, rng: Generator) -> Brow:
    return replace(brow, colour=vivid(rng), thickness=rng.uniform(1.5, 5.4))


def _nose(nose: Nose, rng: Generator) -> Nose:
    count = int(rng.integers(0, 6))
    spots = np.stack(
        [rng.uniform(-0.8, 0.8, count), rng.uniform(0, 1, count), rng.uniform(0.7, 1.4, count)], 1
    )
    return replace(
        nose,
        length=rng.uniform(-3.0, 3.0),
        bridge=rng.uniform(1.6, 5.8),
        bump=rng.uniform(-1.0, 2.8),
        wings=rng.uniform(5.6, 13.4),
        tint=_tint(rng, 0.6),
        nostril=rng.uniform(0.7, 2.3),
        spots=spots,
        spot_colour=vivid(rng),
    )


def _lip(lip: Lip, rng: Generator) -> Lip:
    return replace(lip, colour=vivid(rng), thickness=rng.uniform(1.8, 6.0))


def _ear(ear: Ear, rng: Generator) -> Ear:
    return replace(ear, tint=_tint(rng, 0.6))


def _hair(hair: Hair, rng: Generator) -> Hair:
    return replace(hair, colour_name="vivid", colour=vivid(rng))

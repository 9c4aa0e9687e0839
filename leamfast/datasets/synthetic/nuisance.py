"""What varies between two pictures of one person: pose, expression, light, background, clothes, camera."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from leamfast.datasets.synthetic.traits import Cloth, Colour

__all__ = ["Nuisance", "draw_cloth", "draw_nuisance", "pick", "vivid"]

NECKLINES = ("round", "v", "high", "collar")


@dataclass(frozen=True, eq=False)
class Nuisance:
    """What one picture adds to a person: pose, expression, light, background, clothes, camera."""

    rotation: float  # radians
    shift: NDArray[np.float64]
    scale: float
    yaw: float
    pitch: float
    mouth: float
    smile: float
    brow_raise: float
    lids: float
    gaze: NDArray[np.float64]
    gain: float
    temperature: Colour
    light: NDArray[np.float64]  # slope in x and y over the picture
    shade: NDArray[np.float64]  # strength, direction, offset, softness of a cast shadow
    backdrop: NDArray[np.float64]  # (3, 4, 4)
    backdrop_stripes: NDArray[np.float64]  # strength, wavelength, angle, phase
    cloth: Cloth
    blur: float
    noise: float


def pick(rng: Generator, options: tuple[str, ...] | Mapping[str, object]) -> str:
    """One of the names, evenly."""
    names = tuple(options)
    return names[int(rng.integers(len(names)))]


def vivid(rng: Generator) -> Colour:
    """Any hue, from pastel to dark."""
    hue = rng.uniform(0, 6)
    pure = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return rng.uniform(0.15, 0.95) * (1 - rng.uniform(0.2, 0.9) * (1 - pure))


def draw_cloth(rng: Generator) -> Cloth:
    """Clothes: a neckline, shoulders, two colours, for some stripes."""
    stripes = rng.uniform(3, 11) if rng.uniform() < 0.4 else 0.0
    return Cloth(
        pick(rng, NECKLINES), rng.uniform(0, 1), vivid(rng), vivid(rng), stripes, rng.uniform(0, np.pi)
    )


def draw_nuisance(seed: int, identity: int, image: int) -> tuple[Nuisance, Generator]:
    """What picture `image` of person `identity` adds, and the generator of its sensor noise."""
    rng = np.random.default_rng([seed, 2, identity, image])
    warm = rng.uniform(-1, 1)
    opened = rng.uniform(1.5, 7.0) if rng.uniform() < 0.45 else 0.0
    shaded = rng.uniform() < 0.5
    nuisance = Nuisance(
        rotation=rng.uniform(-0.07, 0.07),
        shift=rng.uniform(-1.8, 1.8, 2),
        scale=rng.uniform(0.93, 1.02),
        yaw=rng.uniform(-1, 1),
        pitch=rng.uniform(-0.5, 0.5),
        mouth=opened,
        smile=rng.uniform(-0.8, 4.2),
        brow_raise=rng.uniform(-1.0, 2.4),
        lids=rng.uniform(0.62, 1.08),
        gaze=rng.uniform(-1, 1, 2),
        gain=float(np.exp(rng.uniform(np.log(0.6), np.log(1.3)))),
        temperature=np.array([1 + 0.2 * warm, 1 + rng.uniform(-0.05, 0.05), 1 - 0.22 * warm]),
        light=rng.uniform(-0.5, 0.5, 2),
        shade=np.array(
            [
                rng.uniform(0.3, 0.65) * shaded,
                rng.uniform(0, 2 * np.pi),
                rng.uniform(-25, 25),
                rng.uniform(4, 25),
            ]
        ),
        backdrop=_draw_backdrop(rng),
        backdrop_stripes=np.array(
            [rng.uniform(0.05, 0.3) * (rng.uniform() < 0.4), rng.uniform(5, 30), *rng.uniform(0, np.pi, 2)]
        ),
        cloth=draw_cloth(rng),
        blur=rng.uniform(0, 0.9),
        noise=rng.uniform(0.004, 0.026),
    )
    return nuisance, rng


def _draw_backdrop(rng: Generator) -> NDArray[np.float64]:
    """Colours (3, 4, 4) of a coarse grid: one colour, with a texture of random strength."""
    texture = rng.uniform(0, 0.5) * rng.uniform(-1, 1, (1, 4, 4)) + 0.1 * rng.uniform(-1, 1, (3, 4, 4))
    return np.clip(vivid(rng)[:, None, None] + texture, 0, 1)

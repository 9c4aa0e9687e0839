"""Painting what is worn: clothes, necklace, glasses, hat and ear rings."""

import numpy as np

from leamfast.datasets.synthetic.canvas import Array, Canvas, ellipse, mirror, smooth
from leamfast.datasets.synthetic.pose import CENTRE, EYE, Pose
from leamfast.datasets.synthetic.traits import Cloth, Identity
from leamfast.faces.regions import region_index

__all__ = ["paint_cloth", "paint_ear_rings", "paint_glasses", "paint_hat", "paint_necklace"]

_CLOTH, _NECKLACE = region_index("cloth"), region_index("neck_l")
_GLASSES, _HAT, _EAR_RINGS = region_index("eyeg"), region_index("hat"), region_index("earr")


def paint_cloth(canvas: Canvas, pose: Pose, cloth: Cloth) -> None:
    """Shoulders with a neckline and, for some, stripes."""
    rise = 99 + 4 * cloth.shoulder
    dip = {"round": 116.0, "v": 121.0, "high": 108.0, "collar": 117.0}[cloth.neckline]
    wide = {"high": 21.0, "v": 22.0}.get(cloth.neckline, 24.0)
    outer = np.array([(wide - 1, rise), (36, rise + 2.5), (54, rise + 7), (72, rise + 18), (72, 150)])
    right, left = outer[::-1] * (-1, 1), outer
    u = np.linspace(-1, 1, 9)[1:-1]
    power = 1.0 if cloth.neckline in ("v", "collar") else 2.2
    line = np.stack([u * (wide - 1), rise + (dip - rise) * (1 - np.abs(u) ** power)], 1)[::-1]
    points = np.concatenate([right, line[::-1], left]) + (CENTRE, 0)
    shape = canvas.coverage(pose.place(points, -3.0))
    if shape.empty:
        return
    x, y = canvas.grid(shape)
    colour = np.repeat(cloth.colour[:, None, None], shape.alpha.shape[0], 1)
    if cloth.stripes > 0:
        phase = (np.cos(cloth.angle) * x + np.sin(cloth.angle) * y) * (2 * np.pi / cloth.stripes)
        mix = np.clip(0.5 + 2 * np.sin(phase), 0, 1)
        colour = colour + mix[None] * (cloth.second[:, None, None] - colour)
    canvas.paint(shape, colour * (1.04 - 0.002 * np.abs(x - CENTRE)[None]), region=_CLOTH)
    rim = canvas.coverage(pose.place(line + (CENTRE, 0), -3.0), width=1.2, within=shape)
    canvas.paint(rim, cloth.colour * 0.6, opacity=0.7)
    if cloth.neckline == "collar":
        flap = np.array([(wide - 2, rise - 1.5), (wide + 6, rise + 2.5), (15, rise + 14), (5, dip - 1)])
        flaps = [pose.place(flap * (side, 1) + (CENTRE, 0), -3.0) for side in (-1, 1)]
        canvas.paint(canvas.coverage(flaps), np.clip(cloth.second + 0.1, 0, 1), region=_CLOTH)


def paint_necklace(canvas: Canvas, pose: Pose, person: Identity) -> None:
    """A chain, pearls or a pendant around the neck."""
    necklace = person.necklace
    if necklace is None:
        return
    u = np.linspace(-1, 1, 17)
    reach = person.head.neck + 1.0
    low = 107.0 + 2.4 * necklace.drop
    points = np.stack([CENTRE + u * reach, low - 7.5 * np.abs(u) ** 2.2], 1)
    if necklace.style == "pearls":
        r = 1.0 + 0.55 * necklace.width
        beads = pose.place(ellipse(0, 0, r, r, count=16) + points[:, None], -2.0)
        canvas.paint(canvas.coverage(beads[::2]), necklace.colour, region=_NECKLACE)
        canvas.paint(canvas.coverage(beads[1::2]), necklace.colour * 0.85, region=_NECKLACE)
        shine = pose.place(ellipse(-0.3, -0.4, 0.5, 0.5, count=8) + points[:, None], -2.0)
        canvas.paint(canvas.coverage(shine), np.ones(3), opacity=0.7)
        return
    width = necklace.width if necklace.style == "pendant" else necklace.width + 0.7
    line = pose.place(points, -2.0)
    canvas.paint(canvas.coverage(line, width=width), necklace.colour * 0.75, region=_NECKLACE)
    canvas.paint(canvas.coverage(line, width=0.45 * width), necklace.colour)
    if necklace.style == "pendant":
        drop = np.array([(0, low - 1.6), (2.9, low + 0.9), (0, low + 4.4), (-2.9, low + 0.9)]) + (CENTRE, 0)
        canvas.paint(canvas.coverage(pose.place(drop, -2.0)), necklace.gem, region=_NECKLACE)


def paint_glasses(canvas: Canvas, pose: Pose, person: Identity) -> None:
    """Frame, bridge, temples and tinted lenses; all of it is `eyeg`, the eyes behind the lenses too."""
    glasses = person.glasses
    if glasses is None:
        return
    rims, lenses = [], []
    for side in (-1, 1):
        x, y = CENTRE + side * (EYE[0] + glasses.x), EYE[1] + 0.8
        outer = ellipse(x, y, glasses.a, glasses.b, power=glasses.power, count=36)
        lenses.append(pose.place(outer, 3.0))
        rims.append(np.concatenate([lenses[-1], lenses[-1][:1]]))
        end = x + side * glasses.a * 0.97
        temple = np.array([(end, y - 3), (CENTRE + side * (person.head.half_width + 1.0), y - 4.0)])
        rims.append(pose.place(temple, np.array([3.0, -1.0])))
    inner = EYE[0] + glasses.x - glasses.a
    bridge = np.array([(-inner - 0.4, -1.5), (-0.4 * inner, -3.2), (0.4 * inner, -3.2), (inner + 0.4, -1.5)])
    rims.append(pose.place(bridge + (CENTRE, EYE[1] + 0.8), 3.0))
    shape = canvas.coverage(lenses)
    canvas.paint(shape, glasses.lens, region=_GLASSES, opacity=glasses.opacity)
    streaks = [pose.place(_streak(side, glasses.x, glasses.b), 3.0) for side in (-1, 1)]
    canvas.paint(canvas.coverage(streaks, within=shape), np.ones(3), opacity=0.22)
    canvas.paint(canvas.coverage(rims, width=glasses.width), glasses.colour, region=_GLASSES)


def _streak(side: int, offset: float, b: float) -> Array:
    """A slanted reflection across a lens."""
    x = CENTRE + side * (EYE[0] + offset)
    return np.array([(x - 5, 51 + b), (x - 2, 51 + b), (x + 5.5, 53 - b), (x + 2.5, 53 - b)])


def paint_hat(canvas: Canvas, pose: Pose, person: Identity) -> None:
    """A beanie with its cuff, a cap with its visor, or a brimmed hat with its band."""
    hat, w = person.hat, person.head.half_width
    if hat is None:
        return
    rim, wide = hat.rim, w + 4
    top = -2 - 8 * hat.height
    dome = np.array(
        [(wide * 0.35, top), (wide * 0.8, top + 8), (wide, 16), (wide, rim - 3), (wide * 0.6, rim + 0.5)]
    )
    shape = canvas.coverage(pose.place(smooth(mirror(dome, CENTRE)), 0.0))
    if shape.empty:
        return
    x, y = canvas.grid(shape)
    tone = 1.06 - 0.35 * ((x - CENTRE) / wide) ** 2 + 0.1 * hat.stripes * np.sign(np.sin(0.9 * x + 0 * y))
    canvas.paint(shape, hat.colour[:, None, None] * tone[None], region=_HAT)
    if hat.style == "beanie":
        half = np.array(
            [(wide * 0.4, rim - 10.5), (wide + 1, rim - 12), (wide + 1.6, rim - 3), (wide * 0.45, rim + 1.5)]
        )
        edge = smooth(mirror(half, CENTRE))
    elif hat.style == "cap":
        half = np.array(
            [(wide * 0.3, rim - 8), (wide * 0.86, rim - 3.5), (wide * 0.9, rim + 1), (wide * 0.4, rim + 5.5)]
        )
        edge = smooth(mirror(half, CENTRE))
    else:
        band = ellipse(CENTRE, rim - 9, wide, 4.2, power=5)
        canvas.paint(canvas.coverage(pose.place(band), within=shape), hat.band)
        edge = ellipse(CENTRE, rim - 2, 54, 5.0 + 1.5 * hat.height, power=2.2, count=40)
    colour = hat.colour * 0.82 if hat.style == "brimmed" else hat.band
    brim = canvas.coverage(pose.place(edge, 1.5 if hat.style == "cap" else 0.0))
    canvas.paint(brim, colour, region=_HAT)


def paint_ear_rings(canvas: Canvas, pose: Pose, person: Identity) -> None:
    """One ring below each ear, in front of the hair."""
    rings = person.ear_rings
    if rings is None:
        return
    for side in (-1, 1):
        x, y = CENTRE + side * (person.head.half_width + 2.6), 68.5

        def at(points: Array) -> Array:
            return pose.place(points, -2.0)

        if rings.style == "hoop":
            r = 3.2 + 2.4 * rings.size
            circle = ellipse(x, y + r - 1.5, r * 0.8, r)
            shape = canvas.coverage(at(np.concatenate([circle, circle[:1]])), width=1.5)
        else:
            r = 2.1 + 1.3 * rings.size
            shape = canvas.coverage(at(ellipse(x, y, r, r)))
        canvas.paint(shape, rings.colour, region=_EAR_RINGS)
        if rings.style == "drop":
            long = 7 + 5 * rings.size
            drop = np.array([(0, 1), (2.4, long * 0.7), (0, long), (-2.4, long * 0.7)]) + (x, y)
            canvas.paint(canvas.coverage(at(drop)), rings.colour * 0.8, region=_EAR_RINGS)
        if rings.style != "hoop":
            canvas.paint(
                canvas.coverage(at(ellipse(x - 0.5, y - 0.6, 0.7, 0.7, count=10))), np.ones(3), opacity=0.8
            )

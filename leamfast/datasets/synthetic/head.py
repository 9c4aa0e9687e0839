"""Painting the head: neck, ears, face with its skin, hair behind and in front."""

import numpy as np

from leamfast.datasets.synthetic.canvas import Array, Canvas, Coverage, ellipse, mirror, smooth
from leamfast.datasets.synthetic.pose import CENTRE, Pose
from leamfast.datasets.synthetic.traits import Hair, Identity
from leamfast.faces.regions import region_index

__all__ = ["paint_ears", "paint_face", "paint_hair", "paint_hair_behind", "paint_neck"]

_NECK, _FACE, _HAIR = region_index("neck"), region_index("face"), region_index("hair")
_EARS = (region_index("rr"), region_index("lr"))


def paint_neck(canvas: Canvas, pose: Pose, person: Identity) -> None:
    """A column below the jaw, in the shade of the chin."""
    w = person.head.neck
    half = np.array(
        [(w, 70), (w * 0.97, 96), (w * 1.02, 104), (w * 1.35, 110), (w * 2.2, 116), (w * 2.2, 140)]
    )
    shape = canvas.coverage(pose.place(smooth(mirror(half, CENTRE)), -3.0))
    _, y = canvas.grid(shape)
    tone = 0.70 + 0.24 * np.clip((y - 99) / 14, 0, 1)
    canvas.paint(shape, person.head.skin[:, None, None] * tone[None], region=_NECK)


def paint_ears(canvas: Canvas, pose: Pose, person: Identity) -> None:
    """Both ears, partly behind the face."""
    for side, ear, region in zip((-1, 1), person.ears, _EARS, strict=True):
        x = person.head.half_width + 0.5 + ear.out
        outline = np.array(
            [
                (-0.7, -0.55), (-0.1, -1.0), (0.65, -0.85), (1.0, -0.3), (0.8, 0.25), (0.5, 0.6),
                (0.25, 0.95), (-0.25 - 0.2 * ear.lobe, 0.8 + 0.25 * ear.lobe), (-0.8, 0.4),
            ]
        )  # fmt: skip
        outline[6:8, 1] += 0.12 * ear.lobe
        cos, sin = np.cos(ear.tilt), np.sin(ear.tilt)
        turned = (outline * (ear.a, ear.b)) @ np.array([[cos, sin], [-sin, cos]])

        def at(points: Array, x: float = x, y: float = ear.y, side: int = side) -> Array:
            return pose.place((points + (x, y)) * (side, 1) + (CENTRE, 0), -2.5)

        skin = person.head.skin * ear.tint
        shape = canvas.coverage(at(smooth(turned)))
        canvas.paint(shape, skin * 0.94, region=region)
        inner = smooth(turned * (0.62, 0.66) + (0.2, -0.5))
        canvas.paint(canvas.coverage(at(inner), within=shape), skin * (1 - ear.fold))
        deep = smooth(turned * (0.3, 0.42) + (0.0, 0.6))
        canvas.paint(canvas.coverage(at(deep), within=shape), skin * (1 - 1.5 * ear.fold))


def paint_face(canvas: Canvas, pose: Pose, person: Identity, jaw_drop: float) -> None:
    """The face from the crown to the chin, with blush, freckles or moles and beard on it."""
    face, w = person.face, person.head.half_width
    chin = face.chin + 0.4 * jaw_drop
    half = np.array(
        [
            (w * 0.2, 10), (w * 0.52, 13.5), (w * 0.8, 22), (w * 0.95, 35), (w, 52),
            (w * 0.97 * face.cheek, 69),
            (w * face.jaw * 0.98, 85 + 0.2 * jaw_drop), (w * face.chin_width + 2, chin - 3.2),
            (w * face.chin_width * 0.45, chin),
        ]
    )  # fmt: skip
    shape = canvas.coverage(pose.place(smooth(mirror(half, CENTRE)), 0.5))
    if shape.empty:
        return
    x, y = canvas.grid(shape)
    centre = pose.place(np.array([(CENTRE, 60.0), (CENTRE - 22, 72.0), (CENTRE + 22, 72.0)]), 1.5)
    rim = ((x - centre[0, 0]) / w) ** 2 + ((y - centre[0, 1]) / 46.0) ** 2
    tone = 1.05 - 0.17 * rim * np.sqrt(rim)
    skin = person.head.skin * face.tint
    colour = skin[:, None, None] * tone[None]
    if face.blush > 0:
        red = np.zeros_like(rim)
        for cx, cy in centre[1:]:
            red += np.exp(-(((x - cx) / 9) ** 2)) * np.exp(-(((y - cy) / 7) ** 2))
        colour += (face.blush * red) * (face.blush_colour[:, None, None] - colour)
    canvas.paint(shape, colour, region=_FACE)
    if len(face.spots):
        marks = ellipse(0, 0, 1, 1, count=12) * face.spots[:, None, 2:] + face.spots[:, None, :2]
        marks_shape = canvas.coverage(pose.place(marks, 1.5), within=shape)
        canvas.paint(marks_shape, skin * (0.62, 0.48, 0.42), opacity=face.spot_strength)
    if face.beard != "none":
        _paint_beard(canvas, pose, person, shape, jaw_drop)


def _paint_beard(canvas: Canvas, pose: Pose, person: Identity, skin: Coverage, jaw_drop: float) -> None:
    """Facial hair, which parsers count as face."""
    face, w, drop = person.face, person.head.half_width, 0.5 * jaw_drop
    cheek = 0.58 + 0.16 * face.beard_width
    shapes: list[Array] = []
    if face.beard in ("stubble", "full"):
        outer = np.array([(w * 1.15, 62), (w * 1.2, 90), (w * 0.8, 112), (w * 0.3, 120)])
        inner = np.array(
            [
                (w * 0.9, 66), (w * 0.84, 74), (w * cheek, 82), (21, 88), (18.5, 95 + drop),
                (10, 100 + drop), (4, 100.5 + drop),
            ]
        )  # fmt: skip
        flip = (-1, 1)
        outline = np.concatenate([outer, outer[::-1] * flip, inner * flip, inner[::-1]])
        shapes.append(outline + (CENTRE, 0))
    if face.beard == "goatee":
        b = 6 + 8 * face.beard_width
        shapes.append(
            smooth(mirror(np.array([(b * 0.7, 98.5 + drop), (b, 101 + drop), (b * 0.8, 112)]), CENTRE))
        )
    if face.beard != "stubble":
        b = 13 + 5 * face.beard_width
        half = np.array(
            [(3, 80.8), (b * 0.6, 82), (b, 85.4), (b + 2, 87.8), (b - 1, 88.8), (7, 87.2), (1, 86.6)]
        )
        shapes.append(smooth(mirror(half, CENTRE)))
    opacity = 0.34 if face.beard == "stubble" else 0.92
    for points in shapes:
        shape = canvas.coverage(pose.place(points, 1.5), within=skin)
        _, y = canvas.grid(shape)
        tone = 1.1 - 0.012 * (y - 80)
        canvas.paint(shape, face.beard_colour[:, None, None] * tone[None], opacity=opacity)


def paint_hair_behind(canvas: Canvas, pose: Pose, person: Identity) -> None:
    """What of the hair hangs behind the neck."""
    hair, w = person.hair, person.head.half_width
    if hair.style not in ("bob", "long", "curly"):
        return
    if hair.style == "curly":
        spread = w + 6 + 8 * hair.volume
        points = ellipse(CENTRE, 46, spread, 52 + 6 * hair.side, power=2.4, count=48)
        points += 1.7 * np.stack([np.cos(np.arange(48) * 4.1), np.sin(np.arange(48) * 2.9)], 1)
    else:
        low = 86 + 10 * hair.side if hair.style == "bob" else 126
        wide = w + 5 + 5 * hair.volume
        half = np.array(
            [(w * 0.6, 8), (wide - 2, 24), (wide, 52), (wide + 1.5, 76), (wide - 1, low), (4, low + 1)]
        )
        points = mirror(half, CENTRE)
    shape = canvas.coverage(pose.place(smooth(points), -3.0))
    canvas.paint(shape, hair.colour * 0.68, region=_HAIR)


def paint_hair(canvas: Canvas, pose: Pose, person: Identity) -> None:
    """The cap of hair over the forehead and beside the face, with a shine and strands."""
    hair, w = person.hair, person.head.half_width
    if hair.style == "bald":
        return
    outline = _hair_outline(hair, w)
    shape = canvas.coverage(pose.place(outline, -0.5))
    if shape.empty:
        return
    x, y = canvas.grid(shape)
    crown = pose.place(np.array([(CENTRE + 12 * hair.part, 44.0)]))[0]
    radius = np.sqrt(((x - crown[0]) / w) ** 2 + ((y - crown[1]) / 42.0) ** 2)
    tone = 0.86 + hair.shine * np.exp(-(((radius - 0.78) / 0.13) ** 2))
    opacity = 0.88 if hair.style == "cropped" else 1.0
    canvas.paint(shape, hair.colour[:, None, None] * tone[None], region=_HAIR, opacity=opacity)
    strands = canvas.coverage(pose.place(_strands(hair, w), -0.5), width=0.7, within=shape)
    if hair.strand_tone > 0:
        canvas.paint(strands, hair.colour + 0.25, opacity=hair.strand_tone)
    else:
        canvas.paint(strands, hair.colour * 0.45, opacity=-hair.strand_tone)


def _hair_outline(hair: Hair, w: float) -> Array:
    """Outer contour from the person's right to left, then the hairline back, (n, 2)."""
    style, v = hair.style, hair.volume
    thick = {"cropped": 1.5, "curly": 8 + 5 * v, "spiky": 5.0}.get(style, 3.5 + 4.5 * v)
    ends = {"cropped": 46.0, "bob": 84 + 10 * hair.side, "long": 128.0, "curly": 62 + 16 * hair.side}
    low = ends.get(style, 47 + 9 * hair.side)
    lock = {"bob": 1.5, "long": 2.0, "curly": 2.5}.get(style, -1.0)  # how far outside the face it hangs
    wide = w + max(thick * 0.65, lock + 3)
    outer = np.array(
        [
            (wide - 0.5, low), (wide, 44), (wide - 2.5, 30), (wide * 0.82, 18 - thick * 0.55),
            (wide * 0.56, 11 - thick * 0.8), (wide * 0.2, 7.5 - thick),
        ]
    )  # fmt: skip
    if style in ("bob", "long"):
        outer = np.insert(outer, 1, [(wide + 1, low - 16)], axis=0)
    right = outer * (-1, 1) + (CENTRE, 0)
    contour = np.concatenate([right, outer[::-1] + (CENTRE, 0)])
    if style == "spiky":
        return np.concatenate([_spikes(contour, v), _hairline(hair, w, low, lock)])
    line = _hairline(hair, w, low, lock)
    closed = smooth(np.concatenate([contour, line]), 5)
    if style == "curly":
        wave = np.arange(len(closed)) * 1.3
        closed = closed + 1.5 * np.stack([np.cos(wave), np.sin(wave)], 1)
    return closed


def _spikes(contour: Array, volume: float) -> Array:
    """The outer contour with a tooth on every other point."""
    steps = np.linspace(0, len(contour) - 1, 23)
    base = np.stack([np.interp(steps, np.arange(len(contour)), contour[:, axis]) for axis in (0, 1)], 1)
    away = base - (CENTRE, 48.0)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    base[3:-3:2] += away[3:-3:2] * (4 + 5 * volume)
    return base


def _hairline(hair: Hair, w: float, low: float, lock: float) -> Array:
    """From the person's left temple over the forehead to the right one."""
    y = 28.0 + hair.line
    top = {"fringe": 36.0 + 0.6 * hair.line, "cropped": y - 2, "curly": y + 2}.get(hair.style, y)
    if hair.style == "fringe":
        inside = np.array([(0.97, low), (0.93, 42), (0.86, top + 1), (0.45, top), (0.12, top + 0.8)])
    else:
        inside = np.array([(1.0, low), (0.95, 42), (0.83, top + 6), (0.55, top), (0.2, top - 2)])
    left = inside * (w, 1)
    left[0, 0] += lock
    line = np.concatenate([left, (left * (-1, 1))[::-1]])
    if hair.style in ("parted", "long", "bob"):  # a parting: the line rises to it and falls on both sides
        lift = np.exp(-(((line[3:-3, 0] / w - hair.part) / 0.3) ** 2))
        line[3:-3, 1] += 3.5 - 9.0 * lift
    return line + (CENTRE, 0)


def _strands(hair: Hair, w: float) -> Array:
    """Lines (n, 6, 2) that follow the hair from the parting outwards."""
    angle, start, end = hair.strands.T
    ones = np.ones_like(angle)
    root = np.stack([CENTRE + hair.part * w * 0.4 + angle * 5, 8.0 * ones], 1)
    if hair.style in ("fringe", "cropped", "spiky"):
        root = np.stack([CENTRE + angle * w * 0.8, 6.0 * ones], 1)
    tip = np.stack([CENTRE + angle * w * 1.12, 34 + 26 * angle**2], 1)
    if hair.style in ("bob", "long"):
        tip = np.stack([CENTRE + np.sign(angle) * w * (0.98 + 0.2 * np.abs(angle)), 112.0 * ones], 1)
    bend = np.stack([CENTRE + angle * w, 16.0 * ones], 1)
    s = (start[:, None] + (end - start)[:, None] * np.linspace(0, 1, 6))[..., None]
    return (1 - s) ** 2 * root[:, None] + 2 * s * (1 - s) * bend[:, None] + s**2 * tip[:, None]

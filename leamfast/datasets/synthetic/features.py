"""Painting the features: eyes, brows, nose and mouth."""

import numpy as np

from leamfast.datasets.synthetic.canvas import Array, Canvas, ellipse, mirror, smooth
from leamfast.datasets.synthetic.nuisance import Nuisance
from leamfast.datasets.synthetic.pose import CENTRE, EYE, MOUTH_Y, NOSE_TIP, Pose
from leamfast.datasets.synthetic.traits import Brow, Eye, Identity
from leamfast.faces.regions import region_index

__all__ = ["landmarks", "paint_brows", "paint_eyes", "paint_mouth", "paint_nose"]

_EYES = (region_index("re"), region_index("le"))
_BROWS = (region_index("rb"), region_index("lb"))
_NOSE, _MOUTH = region_index("nose"), region_index("imouth")
_UPPER_LIP, _LOWER_LIP = region_index("ulip"), region_index("llip")
_INNER = 11.5  # half the width of the mouth line: of no one's own, so that lips can be planted alone


def landmarks(person: Identity, pose: Pose, nuisance: Nuisance) -> Array:
    """Right eye, left eye, nose tip, right and left mouth corner, (5, 2) in template pixels."""
    right, left = person.eyes
    eyes = [(CENTRE - EYE[0] - right.x, EYE[1] + right.y), (CENTRE + EYE[0] + left.x, EYE[1] + left.y)]
    wide = (person.upper_lip.half_width + person.lower_lip.half_width) / 2
    corner = MOUTH_Y + _smile(np.array([wide]), nuisance)[0]
    return np.concatenate(
        [
            pose.place(np.array(eyes), 1.0),
            pose.place(np.array([(CENTRE, NOSE_TIP + person.nose.length)]), 4.0),
            pose.place(np.array([(CENTRE - wide, corner), (CENTRE + wide, corner)]), 2.0),
        ]
    )


def paint_eyes(canvas: Canvas, pose: Pose, person: Identity, nuisance: Nuisance) -> None:
    """Eye shadow, eyeball, iris, pupil, glint and the upper lash line."""
    for side, eye, region in zip((-1, 1), person.eyes, _EYES, strict=True):
        _paint_eye(canvas, pose, eye, side, region, nuisance)


def _paint_eye(canvas: Canvas, pose: Pose, eye: Eye, side: int, region: int, nuisance: Nuisance) -> None:
    u = np.linspace(-1, 1, 15)
    tilt = -eye.tilt * u
    upper = np.stack(
        [u * eye.half_width, tilt - eye.upper * nuisance.lids * (1 - np.abs(u) ** eye.roundness)], 1
    )
    lower = np.stack([u * eye.half_width, tilt + eye.lower * (1 - np.abs(u) ** 2.2)], 1)[-2:0:-1]

    def at(points: Array) -> Array:
        return pose.place((points + (EYE[0] + eye.x, EYE[1] + eye.y)) * (side, 1) + (CENTRE, 0), 1.0)

    if eye.shadow > 0:
        lid = np.concatenate([upper - np.stack([0 * u, 2.2 * (1 - u**2)], 1), upper[::-1]])
        canvas.paint(canvas.coverage(at(lid)), eye.shadow_colour, opacity=eye.shadow)
    ball = canvas.coverage(at(np.concatenate([upper, lower])))
    canvas.paint(ball, np.array([0.95, 0.94, 0.92]), region=region)
    look = nuisance.gaze * (1.6 * side, 0.5)
    x, y = look[0], look[1] - 0.25 * eye.upper * nuisance.lids
    r = eye.iris_radius
    for radius, colour in ((r, eye.iris * 0.55), (r * 0.84, eye.iris), (r * eye.pupil, np.full(3, 0.03))):
        canvas.paint(canvas.coverage(at(ellipse(x, y, radius, radius)), within=ball), colour)
    glint = ellipse(x - 0.32 * r * side, y - 0.36 * r, 0.8, 0.8, count=12)
    canvas.paint(canvas.coverage(at(glint), within=ball), np.ones(3), opacity=0.9)
    shade = np.concatenate([upper, upper[::-1] + (0, 1.5)])
    canvas.paint(canvas.coverage(at(shade), within=ball), np.full(3, 0.15), opacity=0.4)
    lash = canvas.coverage(at(upper), width=eye.lash)
    canvas.paint(lash, eye.lash_colour, region=region)
    canvas.paint(canvas.coverage(at(lower), width=0.5), eye.lash_colour, opacity=0.45)


def paint_brows(canvas: Canvas, pose: Pose, person: Identity, nuisance: Nuisance) -> None:
    """Both brows, thinning outwards."""
    for side, brow, region in zip((-1, 1), person.brows, _BROWS, strict=True):
        points = _brow_outline(brow) + (0, -nuisance.brow_raise)
        shape = canvas.coverage(pose.place(points * (side, 1) + (CENTRE, 0), 1.0))
        canvas.paint(shape, brow.colour, region=region, opacity=0.95)


def _brow_outline(brow: Brow) -> Array:
    """Outline (24, 2) around a centre line with one peak; x is the distance from the head's axis."""
    u = np.linspace(0, 1, 12)
    peak = np.where(u < brow.peak, u / brow.peak, (1 - u) / (1 - brow.peak))
    line = brow.y + brow.tilt * (0.5 - u) - brow.arch * np.sin(peak * np.pi / 2) + brow.arch / 2
    half = brow.thickness / 2 * (1 - brow.taper * u**1.5) * np.minimum(1, 0.55 + 4 * u)
    x = brow.inner + brow.length * u
    return np.concatenate([np.stack([x, line - half], 1), np.stack([x, line + half], 1)[::-1]])


def paint_nose(canvas: Canvas, pose: Pose, person: Identity) -> None:
    """Bridge, wings and tip: no edge at the bridge's top, darker sides and nostrils towards the tip."""
    nose = person.nose
    tip = NOSE_TIP + nose.length
    base = tip + 4.2 + 0.4 * nose.tip
    wing = tip + 1.4 + nose.wing_height
    b, w = nose.bridge, nose.wings
    half = np.array(
        [
            (b * 0.55, 52.0), (b, 55.0), (b * 0.95 + nose.bump, 60.5), (b * 0.7 + w * 0.35, 66.5),
            (w * 0.92, wing - 2.2), (w, wing + 0.6), (w * 0.82, base - 1.0), (w * 0.42, base - 0.6),
            (1.6 + 0.4 * nose.tip, base + 0.4 * nose.tip),
        ]
    )  # fmt: skip

    def at(points: Array) -> Array:
        return pose.place(points, np.clip((points[:, 1] - 50) / 20, 0, 1.1) * 4.0)

    shape = canvas.coverage(at(smooth(mirror(half, CENTRE))))
    if shape.empty:
        return
    x, y = canvas.grid(shape)
    axis = at(np.array([(CENTRE, 53.0), (CENTRE, base)]))
    down = np.clip((y - axis[0, 1]) / (axis[1, 1] - axis[0, 1]), 0, 1)
    across = np.abs(x - (axis[0, 0] + down * (axis[1, 0] - axis[0, 0]))) / (b + (w - b) * down**1.5)
    tint = 1 + (nose.tint[:, None, None] - 1) * (down * (2 - down))[None]
    tone = 1.05 - nose.edge * np.minimum(1, 2.2 * down) * np.minimum(across, 1.3) ** 1.7
    tone += nose.shine * down * np.exp(-((across / nose.shine_width) ** 2))
    canvas.paint(shape, person.head.skin[:, None, None] * tint * tone[None], region=_NOSE)
    if len(nose.spots):
        places = nose.spots[:, :2] * (0.75 * w, base - 60) + (CENTRE, 58.0)
        marks = ellipse(0, 0, 1, 1, count=12) * nose.spots[:, None, 2:]
        spots = canvas.coverage(at(places)[:, None] + marks, within=shape)
        canvas.paint(spots, nose.spot_colour, opacity=0.8)
    dark = person.head.skin * nose.tint * 0.36
    n = nose.nostril
    holes = [at(ellipse(CENTRE + s * w * 0.46, base - 1.5, 1.5 * n, 0.75 * n, count=16)) for s in (-1, 1)]
    canvas.paint(canvas.coverage(holes, within=shape), dark, opacity=0.85)
    under = np.array(
        [(w * s, wing + 1.4) for s in (-1,)] + [(-w * 0.82, base - 1.0), (-w * 0.42, base - 0.6)]
    )
    under = np.concatenate([under, [(0, base + 0.5 * nose.tip)], under[::-1] * (-1, 1)]) + (CENTRE, 0)
    canvas.paint(canvas.coverage(at(under), width=0.8, within=shape), dark, opacity=0.45)


def _smile(x: Array, nuisance: Nuisance) -> Array:
    """How far the mouth line is below its middle at distance x from the axis."""
    return nuisance.smile * (0.4 - (x / 15.0) ** 2)


def _opening(x: Array, nuisance: Nuisance, share: float) -> Array:
    """How far the mouth line has moved at distance x, the `share` of the opening that is a lip's."""
    return share * nuisance.mouth * np.clip(1 - (x / _INNER) ** 2, 0, None) ** 0.7


def paint_mouth(canvas: Canvas, pose: Pose, person: Identity, nuisance: Nuisance) -> None:
    """The open mouth with teeth and tongue, then the lips around it."""

    def at(points: Array) -> Array:
        return pose.place(points + (CENTRE, MOUTH_Y), 2.0)

    def line(x: Array, share: float) -> Array:
        return np.stack([x, _smile(x, nuisance) + _opening(x, nuisance, share)], 1)

    inner = np.linspace(-_INNER, _INNER, 17)
    top, bottom = line(inner, -0.2), line(inner, 0.8)
    inside = canvas.coverage(at(np.concatenate([top, bottom[::-1]])))
    canvas.paint(inside, np.array([0.33, 0.07, 0.09]), region=_MOUTH)
    if nuisance.mouth > 0:
        tongue = ellipse(0, 0.95 * nuisance.mouth, 7, 0.4 * nuisance.mouth)
        canvas.paint(canvas.coverage(at(tongue), within=inside), np.array([0.76, 0.33, 0.36]))
        teeth = np.concatenate([top, top[::-1] + (0, 0.38 * nuisance.mouth)])
        canvas.paint(canvas.coverage(at(teeth), within=inside), np.array([0.95, 0.94, 0.90]))
    u = np.linspace(-1, 1, 21)
    for lip, share, region in ((person.upper_lip, -0.2, _UPPER_LIP), (person.lower_lip, 0.8, _LOWER_LIP)):
        sign = np.sign(share)
        profile = 1 - np.abs(u) ** lip.fullness
        if region == _UPPER_LIP:  # the bow: a dip in the middle between two peaks
            profile = profile * (1 - 0.16 * lip.bow * np.exp(-((u / 0.16) ** 2))) + 0.1 * lip.bow * np.exp(
                -(((np.abs(u) - 0.25) / 0.16) ** 2)
            )
        near = line(u * lip.half_width, share)
        far = near + np.stack([0 * u, sign * lip.thickness * profile], 1)
        shape = canvas.coverage(at(np.concatenate([near, far[::-1]])))
        tone = 0.86 if region == _UPPER_LIP else 1.0
        canvas.paint(shape, lip.colour * tone, region=region)
        if lip.shine > 0:
            middle = near + np.stack([0 * u, 0.5 * sign * lip.thickness * profile], 1)
            gloss = canvas.coverage(at(middle[5:-5]), width=0.24 * lip.thickness, within=shape)
            canvas.paint(gloss, np.ones(3), opacity=lip.shine)
    if nuisance.mouth == 0:
        canvas.paint(
            canvas.coverage(at(line(inner, 0.0)), width=0.8), np.array([0.2, 0.05, 0.05]), opacity=0.7
        )

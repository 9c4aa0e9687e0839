"""What is known against the maps of a run: the paper's signs of failure as named warnings.

`tap` is what is known of a tap before a run: see `leamfast.leam.diagnostics`. The others are seen in its
results, each against a limit of its own, and say what to do.

Reference: arXiv 2509.17457, whose signs of failure are blobs that reach off the face, coefficients of
variation above 80% within an identity, uneven pairs of regions, and a BC below 0.3 within an identity.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from leamfast.analysis.agreement import AgreementRow
from leamfast.analysis.asymmetry import PAIRS, AsymmetryRow
from leamfast.analysis.map_health import FAINT, MapHealth
from leamfast.analysis.off_face import ON_FACE, OffFaceRow
from leamfast.analysis.regions import RegionRow
from leamfast.store.results import Results

__all__ = ["NAMES", "Diagnostic", "Findings", "diagnostics"]

NAMES = (
    "tap", "zero-maps", "vanishing-gradients", "off-face", "blob", "asymmetric", "unstable", "disagreement"
)  # fmt: skip

PERCENT = 5
"""The support that is looked at: 627 of the 12544 pixels of a crop of 112, about two eyes, nose and mouth."""

LEAST_SHARE = 0.01
"""Of the support at `PERCENT`, that a region, or a pair of regions, must hold: six pixels in a crop of 112.
Of less, one pixel more is a large difference."""

OFF_FACE = 1.0
"""Over-representation off the face at `PERCENT`: as often as pixels drawn at random, or more."""

BLOB_EXTENT = 0.115
"""Fraction of the crop at half of a map's maximum: the box around the five points of the ArcFace template,
35.2 by 40.9 of 112 pixels. What is wider cannot tell eyes from nose from mouth."""

BLOB_OFF_FACE = 0.8
"""Over-representation off the face of a blob's mass; 1 is a map that knows nothing of the face. In the demo
maps of 4x4 cells have 0.87, those of 56x56 and 28x28 cells 0.48 to 0.76."""

UNSTABLE = 0.8
"""Coefficient of variation within an identity: the paper's."""

ASYMMETRIC = 0.2
"""Difference of the index from that of the areas: one side holds 1.5 times what the other does. The interval
of the index must leave out that of the areas besides."""

DISAGREEMENT = 0.3
"""Mean BC of two images of one person: the paper's maps that it trusts have 0.32 to 0.57."""

VANISHING = 0.01
"""Fraction of maps whose mass is below `FAINT`: single images may nearly equal their reference."""


@dataclass(frozen=True)
class Diagnostic:
    """One reason to doubt a map; `name` is one of `NAMES`, `value` the number that passed `limit`, if any."""

    model: str
    map: str
    warning: str
    name: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Findings:
    """What the warnings are drawn from: rows of the tables, and the health of the maps of (model, tap)."""

    regions: Sequence[RegionRow]
    asymmetry: Sequence[AsymmetryRow]
    off_face: Sequence[OffFaceRow]
    agreement: Sequence[AgreementRow]
    health: Mapping[tuple[str, str], MapHealth]


def diagnostics(results: Results, findings: Findings) -> list[Diagnostic]:
    """All warnings: of each model those of its taps, then those of its results, maps in order of depth."""
    seen = [
        *_zeros(results, findings.health),
        *_vanishing(findings.health),
        *_off_face(results, findings.off_face),
        *_blobs(findings.off_face, findings.health),
        *_asymmetric(results, findings.asymmetry),
        *_unstable(findings.regions),
        *_disagreement(findings.agreement),
    ]
    rows: list[Diagnostic] = []
    for model in results.models:
        rows += _taps(results, model)
        for name in (*results.taps(model), "fused"):
            rows += [row for row in seen if (row.model, row.map) == (model, name)]
    return rows


def _taps(results: Results, model: str) -> Iterator[Diagnostic]:
    doubted = {tap: results.warnings(model, tap) for tap in results.taps(model)}
    for tap, warnings in doubted.items():
        yield from (Diagnostic(model, tap, warning, "tap") for warning in warnings)
    if mixed := [tap for tap, warnings in doubted.items() if warnings]:
        text = f"it is the mean over taps with warnings too: {', '.join(mixed)}"
        yield Diagnostic(model, "fused", text, "tap")


def _zeros(results: Results, health: Mapping[tuple[str, str], MapHealth]) -> Iterator[Diagnostic]:
    for (model, tap), found in health.items():
        if found.zeros:
            advice = (
                "the gradient finds nothing that is active there: use another tap"
                if results.setting(model, "activation") == "positive"
                else "what the gradient finds there is negative: activation positive leaves fewer of them"
            )
            text = f"{found.zeros} of {found.maps} maps are zero everywhere and count in no table: {advice}"
            yield Diagnostic(model, tap, text, "zero-maps", float(found.zeros), 0.0)


def _vanishing(health: Mapping[tuple[str, str], MapHealth]) -> Iterator[Diagnostic]:
    for (model, tap), found in health.items():
        fraction = found.faint / found.maps if found.maps else 0.0
        if fraction > VANISHING:
            text = (
                f"{found.faint} of {found.maps} maps have a mass below {FAINT:g}, no more than the rounding "
                "of the cosine: gradients vanish before they reach it; use precision fp32 or a deeper tap, "
                "and look for images that nearly equal their reference"
            )
            yield Diagnostic(model, tap, text, "vanishing-gradients", fraction, VANISHING)


def _off_face(results: Results, rows: Iterable[OffFaceRow]) -> Iterator[Diagnostic]:
    for row in rows:
        if row.threshold == PERCENT and row.over_representation >= OFF_FACE:
            parts = results.regions(row.model)
            beyond = "" if "background" in parts else " (pixels that the parser cannot tell count as off it)"
            text = (
                f"{row.share:.0%} of the top {PERCENT}% of its pixels lie off the face{beyond}, "
                f"{row.over_representation:.2f} times what random pixels would: look at the crops and masks "
                "first, then use another tap or registration receptive"
            )
            yield Diagnostic(row.model, row.map, text, "off-face", row.over_representation, OFF_FACE)


def _blobs(rows: Iterable[OffFaceRow], health: Mapping[tuple[str, str], MapHealth]) -> Iterator[Diagnostic]:
    for row in rows:
        found = health.get((row.model, row.map))
        if row.threshold != 100 or found is None:
            continue
        if found.extent > BLOB_EXTENT and row.over_representation >= BLOB_OFF_FACE:
            text = (
                f"{found.extent:.1%} of the crop is at half of the map's maximum or above, where eyes, nose "
                f"and mouth take {100 * BLOB_EXTENT:.3g}%, and {row.share:.0%} of its mass lies off the "
                f"face, {row.over_representation:.2f} times what a flat map has there: such blobs cannot "
                "tell parts of the face apart; use a tap with smaller cells"
            )
            yield Diagnostic(row.model, row.map, text, "blob", found.extent, BLOB_EXTENT)


def _asymmetric(results: Results, rows: Iterable[AsymmetryRow]) -> Iterator[Diagnostic]:
    for row in rows:
        if row.threshold != PERCENT or not row.right + row.left >= LEAST_SHARE:
            continue
        off = row.index - row.area_index
        beyond = row.area_index < row.low or row.area_index > row.high  # never where there is no interval
        if abs(off) > ASYMMETRIC and beyond:
            advice = (
                "look at the pose and the light of the faces"
                if results.setting(row.model, "registration") == "receptive"
                else "a plain resize shifts maps of coarse grids: compare with registration receptive, then "
                "look at the pose and the light of the faces"
            )
            right, left = PAIRS[row.pair]
            text = (
                f"of the top {PERCENT}% of its pixels {row.right:.1%} lie on the person's right {row.pair} "
                f"({right}) and {row.left:.1%} on the left one ({left}), index {row.index:+.2f} where areas "
                f"give {row.area_index:+.2f}: {advice}"
            )
            yield Diagnostic(row.model, row.map, text, "asymmetric", off, ASYMMETRIC)


def _unstable(rows: Iterable[RegionRow]) -> Iterator[Diagnostic]:
    found: dict[tuple[str, str], list[RegionRow]] = {}
    for row in rows:
        held = row.threshold == PERCENT and row.region in ON_FACE and row.share >= LEAST_SHARE
        if held and row.cv_within > UNSTABLE:
            found.setdefault((row.model, row.map), []).append(row)
    for (model, name), unstable in found.items():
        unstable.sort(key=lambda row: -row.cv_within)
        varied = ", ".join(f"{row.region} {row.cv_within:.0%}" for row in unstable)
        text = (
            f"from image to image of one person the shares of the top {PERCENT}% of its pixels vary by more "
            f"than {UNSTABLE:.0%} of their mean ({varied}): a single map says little there; use means over "
            "images"
        )
        yield Diagnostic(model, name, text, "unstable", unstable[0].cv_within, UNSTABLE)


def _disagreement(rows: Sequence[AgreementRow]) -> Iterator[Diagnostic]:
    others = {(row.model, row.map): row.mean for row in rows if row.kind == "D"}
    for row in rows:
        if row.kind == "C" and row.mean < DISAGREEMENT:
            other = others.get((row.model, row.map), math.nan)
            beside = "" if math.isnan(other) else f", those of two people {other:.2f}"
            text = (
                f"maps of two images of one person have a Bhattacharyya coefficient of {row.mean:.2f}"
                f"{beside}: below {DISAGREEMENT} they show the image rather than the "
                "person; use means over images, or a tap with larger cells"
            )
            yield Diagnostic(row.model, row.map, text, "disagreement", row.mean, DISAGREEMENT)

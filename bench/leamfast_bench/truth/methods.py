"""What is scored: LEAM in all its variants, and the peers, each by its own implementation.

A method turns images and references into maps; it sees neither masks nor people.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import torch
from torch import Tensor

from leamfast.leam import ACTIVATIONS, LEAM, POLICIES, PRESETS, REGISTRATIONS, TARGETS, fuse, normalise
from leamfast.leam.registration import Centres
from leamfast.leam.stored import to_stored
from leamfast.models.face_model import FaceModel
from leamfast.models.layers import Layer

__all__ = [
    "ALL_VARIANTS",
    "FAITHFUL",
    "PAPER",
    "Maps",
    "Method",
    "Query",
    "Variant",
    "leam_maps",
    "residual_taps",
    "tap_kind",
]

BATCH = 32


@dataclass(frozen=True, eq=False)
class Query:
    """What maps are made of.

    Attributes:
        model: the model.
        images: preprocessed, (N, 3, H, W).
        mean: unit mean embedding of the other images of each image's person, (N, D).
        each: unit embeddings of them, (N, R, D).
    """

    model: FaceModel
    images: Tensor
    mean: Tensor
    each: Tensor


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of one method at one place.

    Attributes:
        method: the method's name.
        map: tap or `fused`, or empty for a method without layers.
        kind: kind of the tap: stem, convolution, activation, block, fused; or input.
        cells: side of the map's grid.
        maps: (M, h, w), as they would be stored.
        centres: where their cells lie; None: a plain resize.
        rows: image of each map, (M,).
    """

    method: str
    map: str
    kind: str
    cells: int
    maps: Tensor
    centres: Centres | None
    rows: Tensor


Method = Callable[[Query], Iterator[Maps]]


@dataclass(frozen=True)
class Variant:
    """One way of making LEAM maps."""

    target: str
    activation: str
    registration: str
    references: str = "mean"

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"LEAM {self.target} {self.activation} {self.registration} {self.references}"


PAPER, FAITHFUL = (Variant(**asdict(PRESETS[name])) for name in ("paper", "faithful"))
ALL_VARIANTS = tuple(
    Variant(*choice)
    for choice in (
        *product(TARGETS, ACTIVATIONS, REGISTRATIONS, ("mean",)),
        *product(TARGETS, ("positive",), ("receptive",), POLICIES[1:]),
        *product(("loss",), ("signed",), ("resize",), POLICIES[1:]),
    )
)
"""Every combination for `mean` references; the other policies for a few."""


def tap_kind(layer: Layer) -> str:
    """What a tap is, in a residual network with stages `layer1` to `layer4`."""
    if not layer.name.startswith("layer"):
        return "stem"
    return {"Conv2d": "convolution", "PReLU": "activation", "ReLU": "activation"}.get(layer.kind, "block")


def residual_taps(model: FaceModel) -> tuple[Layer, ...]:
    """Convolution and activation of the stem and of the blocks, and the blocks' own outputs."""
    kinds = ("Conv2d", "PReLU", "ReLU", "Block")
    return tuple(tap for tap in model.taps() if tap.kind in kinds and "downsample" not in tap.name)


def leam_maps(query: Query, variants: Sequence[Variant], taps: Sequence[Layer]) -> Iterator[Maps]:
    """Maps of all taps, and fused over the convolutions and over the activations of blocks."""
    kinds = {tap.name: tap_kind(tap) for tap in taps}
    cells = {tap.name: tap.height for tap in taps}
    size = query.model.preprocessing.size
    placed = LEAM(query.model, [tap.name for tap in taps], registration="receptive").centres
    rows = torch.arange(len(query.images))
    for target, activation, references in dict.fromkeys(
        (v.target, v.activation, v.references) for v in variants
    ):
        leam = LEAM(query.model, [tap.name for tap in taps], target, activation=activation)
        maps = _stored(leam, query, references)
        of_maps = rows if references != "each" else rows.repeat_interleave(query.each.shape[1])
        for registration in REGISTRATIONS:
            variant = Variant(target, activation, registration, references)
            if variant not in variants:
                continue
            centres = placed if registration == "receptive" else dict.fromkeys(placed)
            for tap, values in maps.items():
                yield Maps(variant.name, tap, kinds[tap], cells[tap], values, centres[tap], of_maps)
            for kind in ("convolution", "activation"):
                names = [tap for tap in maps if kinds[tap] == kind]
                if len(names) > 1:
                    fused = fuse([maps[tap] for tap in names], size, [centres[tap] for tap in names])
                    yield Maps(variant.name, f"fused {kind}s", "fused", size, fused, None, of_maps)


def _stored(leam: LEAM, query: Query, references: str) -> dict[str, Tensor]:
    """Maps of all taps as they come back from the store, (N, h, w), or (N * R, h, w) for `each`."""
    found: dict[str, list[Tensor]] = {tap: [] for tap in leam.taps}
    wanted = query.mean if references == "mean" else query.each
    for start in range(0, len(query.images), BATCH):
        part = slice(start, start + BATCH)
        for tap, maps in leam(query.images[part], wanted[part]).maps.items():
            if references == "mean-map":
                maps = normalise(maps).mean(dim=1)
            found[tap].append(to_stored(maps.flatten(0, -3))[0].float())
    return {tap: torch.cat(parts) for tap, parts in found.items()}

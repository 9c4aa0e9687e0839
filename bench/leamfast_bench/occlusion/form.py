"""How much is measured."""

from dataclasses import dataclass

__all__ = ["CONTROLS", "FULL", "SMALL", "Form"]

CONTROLS = ("own", "random", "random-block-8", "shifted", "other-identity", "population", "centre")


@dataclass(frozen=True)
class Form:
    """How much is measured.

    Attributes:
        models: SPECs, or `NAME=drawn`; each embeds images that are occluded by the maps of each.
        layers: of them, as `leamfast batch` takes them.
        people: synthetic ones.
        images: of each.
        percents: of the area that are filled.
        controls: the map itself, and what stands in for it.
        seeds: how many draws of what is drawn.
        rows: images in a call of ours, and
        looped: how many of them are in a call of a loop.
        rounds: in which all are timed, in turn.
        expected: images of a run, for which `--backend auto` chooses who computes ours.
        remembered: numbers of images of the runs whose memory is measured, fewest first, with
        remembered_model: as the only one.
    """

    models: tuple[str, ...]
    layers: str
    people: int
    images: int
    percents: tuple[float, ...]
    controls: tuple[str, ...]
    seeds: int
    rows: int
    looped: int
    rounds: int
    expected: int
    remembered: tuple[int, ...]
    remembered_model: str


FULL = Form(
    models=("mobilefacenet=drawn", "demo"),
    layers="auto",
    people=8,
    images=4,
    percents=(1, 2, 5, 10, 20),
    controls=CONTROLS,
    seeds=3,
    rows=8,
    looped=1,
    rounds=3,
    expected=1000,
    remembered=(48, 192),  # images of a block, and of several
    remembered_model="demo",
)
SMALL = Form(
    models=("demo", "again:=demo"),
    layers="conv1,layer3.0.conv1",
    people=3,
    images=3,
    percents=(1, 10),
    controls=CONTROLS,
    seeds=2,
    rows=2,
    looped=1,
    rounds=1,
    expected=1,  # nothing is compiled
    remembered=(8, 16),
    remembered_model="demo",
)

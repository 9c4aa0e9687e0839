"""Choices that belong together: how the paper makes maps, and how maps find what is known to be there."""

from dataclasses import dataclass

from leamfast.errors import RequestError

__all__ = ["PRESETS", "Preset", "preset"]


@dataclass(frozen=True)
class Preset:
    """A way of making maps.

    Attributes:
        target: `loss` or `similarity`.
        activation: `signed` or `positive`.
        registration: `resize` or `receptive`.
        references: `mean`, `each` or `mean-map`.
    """

    target: str
    activation: str
    registration: str
    references: str = "mean"


PRESETS = {
    "paper": Preset("loss", "signed", "resize"),
    "faithful": Preset("similarity", "positive", "receptive"),
}
"""`paper`: as arXiv 2509.17457 states, and the default. `faithful`: what found planted regions best
(`leamfast bench truth`, docs/truth.md)."""


def preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        RequestError: there is none.
    """
    if name not in PRESETS:
        raise RequestError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]

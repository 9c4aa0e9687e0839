"""What a user asks of `leamfast occlude`, and what cannot be asked."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from leamfast.errors import RequestError
from leamfast.models.devices import check_device
from leamfast.store.occlusion import CONTROLS, FILLS, OWN

__all__ = ["STEPS", "OccludeRequest", "check_percents", "check_request", "controls_of", "default_batch"]

STEPS = tuple(float(percent) for percent in range(0, 101, 5))
"""Percents at which deletion and insertion curves are taken."""


@dataclass(frozen=True)
class OccludeRequest:
    """What a user asks of `leamfast occlude`; the command's options have the same names and meanings."""

    out: Path
    percents: tuple[float, ...] = (1, 2, 5, 10, 20)
    fills: tuple[str, ...] = ("black",)
    controls: tuple[str, ...] = CONTROLS
    seeds: int = 3
    curves: bool = False
    evaluated: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None
    data: Path | None = None
    model: tuple[str, ...] = ()
    backend: str = "auto"
    batch_size: int | None = None
    workers: int = 0
    threads: int | None = None
    device: str = "cpu"
    trust_code: bool = False
    overwrite: bool = False


def check_request(request: OccludeRequest) -> None:
    """Raise a RequestError where an option makes no sense."""
    if not request.percents or not all(0 < percent < 100 for percent in request.percents):
        raise RequestError(
            f"--percents must name percents above 0 and below 100, got {_listed(request.percents)}"
        )
    for name, asked, allowed in (
        ("fills", request.fills, FILLS),
        ("controls", request.controls, CONTROLS),
    ):
        if wrong := next((value for value in asked if value not in allowed), None):
            raise RequestError(f"--{name} must name some of {', '.join(allowed)}, got {wrong!r}")
    if not request.fills:
        raise RequestError(f"--fills must name at least one of {', '.join(FILLS)}")
    for name, models in (("sources", request.sources), ("evaluated", request.evaluated)):
        if models is not None and not models:
            raise RequestError(f"--{name} must name at least one model of the run, or not be given")
    least = {"seeds": (request.seeds, 1), "threads": (request.threads, 1), "workers": (request.workers, 0)}
    least |= {"batch-size": (request.batch_size, 1)}
    for name, (value, smallest) in least.items():
        if value is not None and value < smallest:
            raise RequestError(f"--{name} must be at least {smallest}, got {value}")
    check_device(request.device)


def check_percents(percents: Iterable[float], sizes: Iterable[int]) -> None:
    """Raise a RequestError where a percent of a crop of one of these sizes is not a single pixel."""
    smallest, size = min(percents), min(sizes)
    if round(smallest / 100 * size * size) < 1:
        raise RequestError(
            f"--percents must fill at least one pixel, got {smallest:g}, which is none of a crop of {size} "
            "pixels a side"
        )


def controls_of(request: OccludeRequest) -> tuple[str, ...]:
    """The controls of a request in their order, `own` always among them."""
    return tuple(control for control in CONTROLS if control == OWN or control in request.controls)


def default_batch(device: str) -> int:
    """Occluded images that are embedded together; on a CPU as many as its caches like."""
    return 16 if device == "cpu" else 512


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values) or "none"

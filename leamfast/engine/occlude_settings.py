"""Everything that the values of an occlusion pass depend on, besides the blocks themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Evaluated", "OccludeSettings"]


@dataclass(frozen=True)
class Evaluated:
    """A model that embeds occluded images.

    Attributes:
        name: under which the run stored its results.
        spec: as `load_model` takes it.
        preprocessing: for a spec that brings none.
        backend: who computes it.
        tap: the deepest one of its taps: what is kept for a backward pass begins there.
        kept: file of its compiled program, where another process has built it.
    """

    name: str
    spec: str
    preprocessing: Mapping[str, Any] | None
    backend: str
    tap: str
    kept: Path | None = None


@dataclass(frozen=True)
class OccludeSettings:
    """Everything that the values depend on, besides the blocks themselves.

    Attributes:
        root: the result folder.
        evaluated: models that embed occluded images; `sources`: names of those whose maps are occluded.
        percents, controls, fills, seeds, steps: see `OcclusionAxes`.
        align: how the run aligned faces.
        policy, max_references, draws: its references, and the seed of their draws.
        target, activation, registration, precision: of the programs.
        each: whether it kept maps of single references.
        batch: images that are embedded together.
        threads, device: who computes.
        trust_code: whether `module:factory` may run.
        run: SHA-256 of what the values depend on, by which blocks say what they were made from.
    """

    root: Path
    evaluated: tuple[Evaluated, ...]
    sources: tuple[str, ...]
    percents: tuple[float, ...]
    controls: tuple[str, ...]
    fills: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: tuple[float, ...]
    align: str
    policy: str
    max_references: int
    draws: int
    target: str
    activation: str
    registration: str
    precision: str
    each: bool
    batch: int
    threads: int
    device: str
    trust_code: bool
    run: str

"""Everything that the values of the main pass depend on, besides the shards themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leamfast.engine.maps import MapSettings

__all__ = ["BatchSettings", "ModelSettings"]


@dataclass(frozen=True)
class ModelSettings:
    """One model of a run.

    Attributes:
        spec: as `load_model` takes it.
        name: under which its results are stored.
        layers: names of its taps.
        size: side of its input in pixels.
        backend: who computes it.
        preprocessing: for a spec that brings none.
    """

    spec: str
    name: str
    layers: tuple[str, ...]
    size: int
    backend: str = "eager"
    preprocessing: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class BatchSettings:
    """Everything that the values of the main pass depend on, besides the shards themselves.

    Attributes:
        root: folder that relative image paths start from.
        models: the models.
        detector: `retinaface=FILE` or `dlib`, or None where the crops are aligned already.
        align: `arcface`, `paper` or `none`.
        faces: `one`, or `largest` of several.
        parser: who tells the regions of a picture: as `parse_parser` takes it, `none` for no one.
        columns: metadata columns.
        person_columns: those of them that say the same of all images of an identity.
        target: `loss` or `similarity`.
        activation: `signed` or `positive`.
        registration: `resize` or `receptive`.
        precision: `fp32`, `tf32` or `bf16`.
        maps: reference policy, draws and batch size.
        threads: how many threads one process computes with.
        device: where models compute.
        finding_device: where faces are found and parsed.
        trust_code: whether `module:factory` may run.
    """

    root: Path
    models: tuple[ModelSettings, ...]
    detector: str | None
    align: str
    faces: str
    parser: str
    columns: tuple[str, ...]
    person_columns: tuple[str, ...]
    target: str
    activation: str
    registration: str
    precision: str
    maps: MapSettings
    threads: int
    device: str
    finding_device: str
    trust_code: bool = False

    @property
    def sizes(self) -> list[int]:
        """Input sizes of the models, each once."""
        return sorted({model.size for model in self.models})

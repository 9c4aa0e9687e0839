"""The main pass: shards of images -> embeddings, maps, region shares, as parts.

A `BatchFunction` is what `engine.run` carries to its workers. It is small and picklable; models and detector
are loaded once in each process, at its first shard.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leamfast.engine.ahead import CropsAhead
from leamfast.engine.crops import Crops, Finding, make_crops
from leamfast.engine.maps import MapSettings, map_rows
from leamfast.engine.plan import Shard
from leamfast.faces.cache import face_cache
from leamfast.faces.detection import parse_detector
from leamfast.leam.backends import build_program
from leamfast.leam.diagnostics import program_warnings
from leamfast.leam.program import Program
from leamfast.leam.registration import plain_centres
from leamfast.leam.taps import select_taps
from leamfast.models.devices import processor_name
from leamfast.models.loading import load_model
from leamfast.store.arrays import THRESHOLDS, Array
from leamfast.store.part import Part

__all__ = ["BatchFunction", "BatchSettings", "ModelSettings", "set_up_torch"]


@dataclass(frozen=True)
class ModelSettings:
    """One model of a run.

    Attributes:
        spec: as `load_model` takes it.
        name: under which its results are stored.
        layers: names of its taps.
        backend: who computes it.
        preprocessing: for a spec that brings none.
    """

    spec: str
    name: str
    layers: tuple[str, ...]
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
        labels: whether the manifest brings region masks.
        columns: metadata columns.
        person_columns: those of them that say the same of all images of an identity.
        target: `loss` or `similarity`.
        activation: `signed` or `positive`.
        registration: `resize` or `receptive`.
        precision: `fp32`, `tf32` or `bf16`.
        maps: reference policy, draws and batch size.
        threads: how many threads one process computes with.
        device: where models compute.
        trust_code: whether `module:factory` may run.
    """

    root: Path
    models: tuple[ModelSettings, ...]
    detector: str | None
    align: str
    faces: str
    labels: bool
    columns: tuple[str, ...]
    person_columns: tuple[str, ...]
    target: str
    activation: str
    registration: str
    precision: str
    maps: MapSettings
    threads: int
    device: str
    trust_code: bool = False


def set_up_torch(threads: int, device: str) -> None:
    """Make torch compute with so many threads, and give the same bits for the same request."""
    torch.set_num_threads(threads)
    if torch.device(device).type == "cuda":
        if torch.device(device).index is not None:
            torch.cuda.set_device(device)  # what compiled code and pinned copies go by
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32; it is torch's default to round here
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


class BatchFunction:
    """Shard -> part.

    Args:
        settings: of the run.
        programs: by name, where this process has built them already.

    Attributes:
        overlap: whether the next shard's crops are made while models compute: the processor is free then.
            Not where a detector computes beside models in tf32, which is on or off for a whole process.
    """

    def __init__(self, settings: BatchSettings, programs: dict[str, Program] | None = None) -> None:
        self.settings = settings
        alone = settings.detector is None or settings.precision != "tf32"
        self.overlap = torch.device(settings.device).type == "cuda" and alone
        self.kept: dict[str, Path | None] = {}
        if programs is not None:
            self.programs = programs
            self.kept = {name: program.kept for name, program in programs.items()}

    def __getstate__(self) -> dict[str, Any]:
        # What a process has loaded stays there.
        return {"settings": self.settings, "overlap": self.overlap, "kept": self.kept}

    @cached_property
    def programs(self) -> dict[str, Program]:
        """The model's programs by name, loaded at first use."""
        settings = self.settings
        set_up_torch(settings.threads, settings.device)
        programs = {}
        for m in settings.models:
            model = load_model(
                m.spec, preprocessing=m.preprocessing, trust_code=settings.trust_code, device=settings.device
            )
            programs[m.name] = build_program(
                model,
                select_taps(model, m.layers),
                target=settings.target,
                activation=settings.activation,
                registration=settings.registration,
                backend=m.backend,
                precision=settings.precision,
                kept=self.kept.get(m.name),
            )
        return programs

    @cached_property
    def warnings(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """What is known against the taps of each model."""
        activation, registration = self.settings.activation, self.settings.registration
        return {
            name: program_warnings(program, activation, registration)
            for name, program in self.programs.items()
        }

    @cached_property
    def finding(self) -> Finding | None:
        """How faces are found; the detector is loaded at first use."""
        settings = self.settings
        if settings.detector is None:
            return None
        spec = parse_detector(settings.detector)
        computes = f"{processor_name(settings.device)}, {settings.threads} threads"  # low bits depend on both
        cache = face_cache(spec, computes)
        return Finding(spec.load(settings.device), settings.align, settings.faces, cache)

    @cached_property
    def sizes(self) -> list[int]:
        """Input sizes of the models."""
        return sorted({program.model.preprocessing.size for program in self.programs.values()})

    @cached_property
    def crops(self) -> CropsAhead:
        """Who makes crops."""
        settings, sizes, finding = self.settings, self.sizes, self.finding

        def make(shard: Shard) -> Crops:
            torch.set_num_threads(settings.threads)  # of this thread, which would take all others
            return make_crops(shard, settings.root, sizes, finding, settings.labels, settings.threads)

        return CropsAhead(make)

    def __call__(self, shard: Shard, ahead: Shard | None = None) -> Part:
        """Compute one shard; `ahead` is the one that is probably next."""
        settings, programs, sizes = self.settings, self.programs, self.sizes
        crops = self.crops.take(shard)
        if self.overlap and ahead is not None:
            self.crops.begin(ahead)
        identities = [row.identity for row in crops.rows]
        arrays = _image_arrays(crops, settings.columns)
        arrays |= _identity_arrays(shard, identities, settings.person_columns)
        for size in sizes:
            arrays |= _crop_arrays(crops, size, settings.labels)
        groups = {}
        for name, program in programs.items():
            size = program.model.preprocessing.size
            rows = map_rows(
                program,
                _stack(crops.images[size], (size, size, 3), np.uint8),
                _stack(crops.labels[size], (size, size), np.uint8) if settings.labels else None,
                identities,
                [row.position for row in crops.rows],
                len(shard.identities),
                settings.maps,
            )
            arrays |= {f"model/{name}/{path}": array for path, array in rows.arrays.items()}
            arrays |= _scales(name, program)
            groups[f"model/{name}"] = _attributes(program, settings)
            for tap in program.taps:
                about = {"kind": tap.kind, "warnings": "\n".join(self.warnings[name][tap.name])}
                groups[f"model/{name}/layer/{tap.name}"] = about
            for equal in rows.equal:
                crops.fail(
                    crops.rows[equal].entry,
                    "reference",
                    f"a reference equals the image for {name}: no map of that pair",
                )
            for broken in rows.broken:
                crops.fail(
                    crops.rows[broken].entry,
                    "embed",
                    f"embedding by {name} is not finite or zero: no map",
                )
        counts = Counter(identities)
        for row, identity in zip(crops.rows, identities, strict=True):
            if counts[identity] == 1:
                crops.fail(
                    row.entry, "reference", "only usable image of its identity: embedding kept, no map"
                )
        return Part(shard.number, arrays, groups, tuple(crops.failures))


def _image_arrays(crops: Crops, columns: Sequence[str]) -> dict[str, Array]:
    rows = crops.rows
    arrays = {
        "image/path": _text([row.entry.name for row in rows], "row"),
        "image/sha1": _text([row.sha1 for row in rows], "row"),
        "image/position": Array(np.array([row.position for row in rows], np.int64), ("row",)),
        "image/identity": Array(np.array([row.identity for row in rows], np.int64), ("row",), "person"),
    }
    for column in columns:
        arrays[f"image/{column}"] = _text([row.entry.metadata[column] for row in rows], "row")
    return arrays


def _identity_arrays(shard: Shard, identities: Sequence[int], columns: Sequence[str]) -> dict[str, Array]:
    persons = shard.identities
    counts = np.bincount(np.array(identities, np.int64), minlength=len(persons))
    arrays = {
        "identity/name": _text([person.name for person in persons], "person"),
        "identity/images": Array(counts.astype(np.int64), ("person",)),
    }
    for column in columns:
        arrays[f"identity/{column}"] = _text([p.entries[0].metadata[column] for p in persons], "person")
    return arrays


def _crop_arrays(crops: Crops, size: int, labels: bool) -> dict[str, Array]:
    transforms = _stack(crops.transforms[size], (2, 3), np.float64)
    arrays = {f"crop/{size}/transform": Array(transforms, ("row", "affine_y", "affine_x"))}
    if labels:
        masks = _stack(crops.labels[size], (size, size), np.uint8)
        arrays[f"crop/{size}/label"] = Array(masks, ("row", "y", "x"))
    return arrays


def _scales(name: str, program: Program) -> dict[str, Array]:
    """Centres of the cells of each tap's grid, in input pixels (pixel centres at whole numbers)."""
    size = program.model.preprocessing.size
    scales = {}
    for tap in program.taps:
        centres = program.centres[tap.name] or plain_centres(tap, size)
        for axis, cells, (offset, step) in zip("hw", (tap.height, tap.width), centres, strict=True):
            values = (offset + step * np.arange(cells)).astype(np.float32)
            scales[f"model/{name}/layer/{tap.name}/{axis}"] = Array(values, (axis,))
    return scales


def _attributes(program: Program, settings: BatchSettings) -> dict[str, Any]:
    preprocessing = program.model.preprocessing
    return {
        "architecture": program.model.architecture,
        "weights": program.model.weights,
        "input_size": preprocessing.size,
        "channels": preprocessing.channels,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "taps": ",".join(tap.name for tap in program.taps),
        "target": settings.target,
        "references": settings.maps.references,
        "activation": settings.activation,
        "registration": settings.registration,
        "precision": settings.precision,
        "thresholds": THRESHOLDS,
    }


def _text(values: Sequence[str], dim: str) -> Array:
    return Array(np.array(values, dtype=object), (dim,))


def _stack(values: Sequence[np.ndarray], shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.stack(values).astype(dtype, copy=False) if values else np.empty((0, *shape), dtype)

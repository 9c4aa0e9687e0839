"""The occlusion pass: a block of rows -> how far the cosine falls when supports of maps are filled.

An `OccludeFunction` is what `engine.run` carries to its workers: small and picklable; the run is opened and
models are loaded in each process at its first block. Every occluded image is embedded once by each evaluated
model and compared with all references; masks that depend on no map are embedded once for all maps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leamfast.datasets.manifest import Manifest
from leamfast.engine.batch import set_up_torch
from leamfast.engine.occlude_settings import OccludeSettings
from leamfast.engine.occlusion_curves import CURVED, Curves, curve_masks
from leamfast.engine.occlusion_evaluation import Evaluation
from leamfast.engine.occlusion_maps import Entries, OcclusionMaps
from leamfast.engine.occlusion_references import OcclusionReferences
from leamfast.engine.occlusion_supports import BY_ENTRY, Supports, drawn_masks
from leamfast.engine.pair_maps import FUSED
from leamfast.engine.recrop import Recrop
from leamfast.faces.regions import region_index
from leamfast.leam.backends import build_program
from leamfast.leam.program import Program
from leamfast.leam.taps import select_taps
from leamfast.models.loading import load_model
from leamfast.store.occlusion import OcclusionArrays, OcclusionAxes
from leamfast.store.occlusion_block import OcclusionBlock, write_block
from leamfast.store.results import Results, open_results

__all__ = ["BlockSink", "OccludeFunction", "OccludePiece", "images_of_row"]

MASKS = 2**14
"""Masks of one source model that lie in memory at the same time: 200 MB for crops of 112 pixels."""

PICTURES = 256
"""Pictures that lie in memory at the same time, each raw, as a model takes it, and as every fill: 100 MB."""

FACE = tuple(map(region_index, ("face", "rb", "lb", "re", "le", "nose", "imouth", "llip", "ulip", "eyeg")))
"""Regions on which a support may come to lie with its middle."""


@dataclass(frozen=True, eq=False)
class OccludePiece:
    """Consecutive rows of a run.

    Attributes:
        number, count: place in the plan, and how many blocks it has.
        first: the first row; `rows`: how many there are.
        nearest: for each row that of nearest pose of the same identity, -1 where none is known, (rows,).
    """

    number: int
    count: int
    first: int
    rows: int
    nearest: np.ndarray

    @property
    def amount(self) -> int:
        """What progress counts: images."""
        return self.rows

    @property
    def title(self) -> str:
        """What the reader knows it by."""
        return f"block {self.number} (rows {self.first} to {self.first + self.rows - 1})"


def images_of_row(
    maps: int,
    references: int,
    percents: Sequence[float],
    controls: Sequence[str],
    seeds: int,
    steps: Sequence[float],
) -> int:
    """Occluded images of one row that one model embeds for one source model's maps and one fill, about.

    Args:
        maps: taps of the source model, and `fused`.
        references: single ones that a row has a map for each of; 1 otherwise.
        percents, controls, steps: of the pass; `seeds`: how many.
    """
    count = 0
    for control in controls:
        drawn = seeds if control in ("shifted", "shifted-on-face", "other-identity") else 1
        count += drawn * (references if control in BY_ENTRY else 1)
    curves = 2 * max(0, len(steps) - 2) * len(set(CURVED).intersection(controls))
    return maps * (count * len(percents) + curves)


class OccludeFunction:
    """Piece -> block of stored drops.

    Args:
        settings: of the pass.
        manifest: the images of the run.
        programs: by name, where this process has built them already.
    """

    def __init__(
        self,
        settings: OccludeSettings,
        manifest: Manifest,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        self.settings, self.manifest = settings, manifest
        self.device = torch.device(settings.device)
        self._maps: dict[tuple[str, str, int], OcclusionMaps] = {}
        self._references: dict[str, OcclusionReferences] = {}
        if programs is not None:
            self.programs = dict(programs)

    def __getstate__(self) -> dict[str, Any]:
        # What a process has loaded stays there.
        own = {"settings": self.settings, "manifest": self.manifest, "device": self.device}
        return {**own, "_maps": {}, "_references": {}}

    @cached_property
    def results(self) -> Results:
        """The run, opened at first use."""
        set_up_torch(self.settings.threads, self.settings.device)
        return open_results(self.settings.root, with_pairs=False)

    @cached_property
    def recrop(self) -> Recrop:
        """Who makes the crops of the run again."""
        return Recrop(self.results, self.manifest)

    def close(self) -> None:
        """Close the run, where it was opened."""
        if "results" in self.__dict__:
            self.results.close()

    @cached_property
    def programs(self) -> dict[str, Program]:
        """The evaluated models by name, loaded at first use."""
        settings = self.settings
        set_up_torch(settings.threads, settings.device)
        programs = {}
        for m in settings.evaluated:
            model = load_model(
                m.spec, preprocessing=m.preprocessing, trust_code=settings.trust_code, device=settings.device
            )
            programs[m.name] = build_program(
                model,
                select_taps(model, (m.tap,)),
                target=settings.target,
                activation=settings.activation,
                registration=settings.registration,
                backend=m.backend,
                precision=settings.precision,
                kept=m.kept,
            )
        return programs

    def load(self, programs: Mapping[str, bytes]) -> None:
        """Load the models now: what a worker takes for that is not its first block's time."""
        _ = self.programs

    def __call__(self, piece: OccludePiece, ahead: OccludePiece | None = None) -> OcclusionBlock:
        """Occlude the rows of a block."""
        sizes = sorted({program.model.preprocessing.size for program in self.programs.values()})
        rows = np.arange(piece.first, piece.first + piece.rows)
        made = self.recrop.crops(rows, sizes, self.settings.threads)
        left_out = dict(made.failures)
        found: dict[tuple[str, str], list[OcclusionArrays]] = {}
        for part in self._parts(rows):
            block = slice(part[0] - rows[0], part[-1] + 1 - rows[0])
            mine = {size: images[block] for size, images in made.images.items()}
            missing = np.array([int(row) in left_out for row in part])
            for key, arrays in self._occluded(part, mine, piece.nearest[block], missing, left_out):
                found.setdefault(key, []).append(arrays)
        groups = {key: (self.axes(key[1]), _joined(parts)) for key, parts in found.items()}
        for references in self._references.values():
            references.forget()
        return OcclusionBlock(
            piece.number, piece.count, piece.first, piece.rows, self.settings.run, groups, left_out
        )

    def axes(self, source: str) -> OcclusionAxes:
        """What the axes of a source model's drops stand for."""
        s = self.settings
        return OcclusionAxes(
            (*self.results.taps(source), FUSED), s.percents, s.controls, s.fills, s.seeds, s.steps
        )

    def _parts(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Rows a few at a time, as their masks fit into memory."""
        s = self.settings
        names = max(len(self.axes(source).maps) for source in s.sources)
        most = s.max_references if s.each else 1
        images = images_of_row(names, most, s.percents, s.controls, len(s.seeds), s.steps)
        step = max(1, min(PICTURES, MASKS // images))
        for start in range(0, len(rows), step):
            yield rows[start : start + step]

    def _occluded(
        self,
        rows: np.ndarray,
        crops: Mapping[int, np.ndarray],
        nearest: np.ndarray,
        missing: np.ndarray,
        left_out: dict[int, str],
    ) -> Iterator[tuple[tuple[str, str], OcclusionArrays]]:
        """Arrays of some rows for every evaluated and source model."""
        settings = self.settings
        for size, images in crops.items():
            drawn = drawn_masks(rows, settings.percents, settings.controls, settings.seeds, size, self.device)
            models = [
                Evaluation(name, program, images, rows, settings, drawn)
                for name, program in self.programs.items()
                if program.model.preprocessing.size == size
            ]
            absent = {model.name: missing | model.changed(self.results, left_out) for model in models}
            for source in settings.sources:
                supports = self._supports(source, size, rows, nearest)
                curves = self._curves(source, size, rows) if settings.steps else None
                for model in models:
                    vectors = self._reference_vectors(model.name, supports.entries)
                    yield (model.name, source), model.arrays(supports, vectors, absent[model.name], curves)

    def _supports(self, source: str, size: int, rows: np.ndarray, nearest: np.ndarray) -> Supports:
        settings = self.settings
        maps = {name: self._maps_of(source, name, size) for name in self.axes(source).maps}
        return Supports.of(
            maps,
            next(iter(maps.values())).entries(rows),
            rows,
            nearest,
            self._faces(size, rows),
            settings.percents,
            settings.controls,
            settings.seeds,
            size,
            self.device,
        )

    def _curves(self, source: str, size: int, rows: np.ndarray) -> Curves:
        """Masks of curves, of one map a row."""
        s, names = self.settings, self.axes(source).maps
        maps = {name: self._maps_of(source, name, size).of_images() for name in names}
        entries = Entries.of_images(rows)
        return curve_masks(maps, entries, rows, s.controls, s.steps, s.seeds[0], size, self.device)

    def _maps_of(self, source: str, name: str, size: int) -> OcclusionMaps:
        key = source, name, size
        if key not in self._maps:
            aligned = None if self.results.input_size(source) == size else self.settings.align
            each = self.settings.each
            self._maps[key] = OcclusionMaps(
                self.results, source, name, each, self.settings.device, aligned, size
            )
        return self._maps[key]

    def _faces(self, size: int, rows: np.ndarray) -> np.ndarray | None:
        """Where the faces of rows are, (n, size, size); None where the run has no region masks."""
        group = self.results.file.get(f"crop/{size}/label")
        return None if group is None else np.isin(group[rows[0] : rows[-1] + 1], FACE)

    def _reference_vectors(self, model: str, entries: Entries) -> tuple[Tensor, Tensor]:
        """Mean unit embedding of the references of each map, (E, D), and how many they are, (E,)."""
        s = self.settings
        if model not in self._references:
            self._references[model] = OcclusionReferences(
                self.results, model, s.policy, s.max_references, s.draws
            )
        vectors, counts = self._references[model].of(entries.image, entries.reference)
        return torch.from_numpy(vectors).to(self.device), torch.from_numpy(counts).to(self.device)


class BlockSink:
    """Writes blocks into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, result: OcclusionBlock) -> None:
        write_block(self.folder, result)


def _joined(parts: list[OcclusionArrays]) -> OcclusionArrays:
    """Arrays of consecutive rows as one."""
    names = [name for name, value in vars(parts[0]).items() if value is not None]
    return OcclusionArrays(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})

"""The main pass: shards of images -> embeddings, maps, region shares, as parts.

A `BatchFunction` is what `engine.run` carries to its workers. It is small and picklable; models and detector
are loaded once in each process, at its first shard.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leamfast.engine.ahead import CropsAhead
from leamfast.engine.batch_settings import BatchSettings
from leamfast.engine.crop_cache import CropCache, crop_cache
from leamfast.engine.crops import Crops, make_crops
from leamfast.engine.finding import Finding, load_finding
from leamfast.engine.maps import map_rows
from leamfast.engine.masks import MaskFiles
from leamfast.engine.part_arrays import attributes, crop_arrays, identity_arrays, image_arrays, scales, stack
from leamfast.engine.plan import Shard
from leamfast.engine.reference_pools import ReferencePool
from leamfast.engine.slices import SplitReferences
from leamfast.faces.cache import weights_sha256
from leamfast.faces.parse import Parser, parse_parser
from leamfast.faces.regions import REGIONS
from leamfast.leam.backends import build_program
from leamfast.leam.diagnostics import program_warnings
from leamfast.leam.program import Program
from leamfast.leam.program_cache import keep
from leamfast.leam.taps import select_taps
from leamfast.models.loading import load_model
from leamfast.store.part import Part
from leamfast.store.references import References

__all__ = ["BatchFunction", "set_up_torch"]


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
        kept: files of compiled programs by the model's name, where another process has built them.

    Attributes:
        references: of identities that lie in several shards; the reference pass says where they come from.
        overlap: whether the next shard's crops are made while models compute: the processor is free then.
            Not where a detector computes beside models in tf32, which is on or off for a whole process.
    """

    def __init__(
        self,
        settings: BatchSettings,
        programs: dict[str, Program] | None = None,
        kept: Mapping[str, Path | None] | None = None,
    ) -> None:
        self.settings = settings
        alone = settings.detector is None or settings.precision != "tf32"
        self.overlap = torch.device(settings.device).type == "cuda" and alone
        self.kept: dict[str, Path | None] = dict(kept or {})
        self.references = SplitReferences({})
        if programs is not None:
            self.programs = programs
            self.kept = {name: program.kept for name, program in programs.items()}

    def load(self, programs: Mapping[str, bytes]) -> None:
        """Load the models now, with programs that were compiled elsewhere, by the name of their file."""
        with suppress(OSError):  # where none can be kept, each process compiles its own
            paths = {name: keep(name, content) for name, content in programs.items()}
            self.kept = {
                model: None if path is None else paths.get(path.name, path)
                for model, path in self.kept.items()
            }
        _ = self.programs

    def __getstate__(self) -> dict[str, Any]:
        # What a process has loaded stays there.
        own = {"settings": self.settings, "overlap": self.overlap, "kept": self.kept}
        return {**own, "references": self.references}

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
        return load_finding(
            settings.detector, settings.align, settings.faces, settings.finding_device, settings.threads
        )

    @cached_property
    def parsing(self) -> Parser | MaskFiles | None:
        """Who tells regions; a parser is loaded at first use."""
        spec, settings = parse_parser(self.settings.parser), self.settings
        if spec.name == "none":
            return None
        return spec.load(settings.finding_device) if spec.of_faces else MaskFiles(settings.root, spec.path)

    @cached_property
    def known_crops(self) -> CropCache | None:
        """Crops that were made before, where faces are found and caches are on."""
        settings, finding = self.settings, self.finding
        if finding is None or finding.cache is None:
            return None
        words = [*finding.cache.depends, settings.align, settings.faces]
        spec = parse_parser(settings.parser)
        if spec.of_faces:
            words += [spec.name, "" if spec.path is None else weights_sha256(spec.path)]
        return crop_cache(words)

    @cached_property
    def crops(self) -> CropsAhead:
        """Who makes crops."""
        return CropsAhead(self.prepare)

    def prepare(self, shard: Shard) -> Crops:
        """Decode, find faces, align and parse: everything before the models."""
        settings, finding, parsing = self.settings, self.finding, self.parsing
        torch.set_num_threads(settings.threads)  # of this thread, which would take all others
        of_identity = self.references.of(shard)
        repeats = None
        if of_identity is not None:
            repeats, shard = of_identity.repeats, shard.without(of_identity.left_out)
        return make_crops(
            shard,
            settings.root,
            settings.sizes,
            finding,
            parsing,
            settings.threads,
            self.known_crops,
            repeats,
        )

    def __call__(self, shard: Shard, ahead: Shard | None = None) -> Part:
        """Compute one shard; `ahead` is the one that is probably next."""
        crops = self.crops.take(shard)
        of_identity = self.references.check(shard, crops.positions)  # before another identity's are asked for
        if self.overlap and ahead is not None:
            self.crops.begin(ahead)
        return self._part(shard, crops, of_identity)

    def compute(self, shard: Shard, crops: Crops) -> Part:
        """The part of a shard whose crops are made."""
        return self._part(shard, crops, self.references.check(shard, crops.positions))

    def _part(self, shard: Shard, crops: Crops, of_identity: References | None) -> Part:
        settings, programs, sizes = self.settings, self.programs, self.settings.sizes
        torch.set_num_threads(settings.threads)
        identities = [row.identity for row in crops.rows]
        own = {row.position: row.entry.name for row in crops.rows}
        name_at = own.__getitem__ if of_identity is None else of_identity.name
        arrays = image_arrays(crops, settings.columns, settings.detector is not None)
        arrays |= identity_arrays(shard, identities, settings.person_columns)
        groups: dict[str, dict[str, Any]] = {}
        for size in sizes:
            arrays |= crop_arrays(crops, size, self.parsing is not None)
            if self.parsing is not None:
                name = parse_parser(settings.parser).name
                groups[f"crop/{size}"] = {"parser": name, "regions": ",".join(self.parsing.known)}
        for name, program in programs.items():
            size = program.model.preprocessing.size
            rows = map_rows(
                program,
                stack(crops.images[size], (size, size, 3), np.uint8),
                None if self.parsing is None else stack(crops.labels[size], (size, size), np.uint8),
                identities,
                crops.positions,
                shard.persons,
                settings.maps,
                REGIONS if self.parsing is None else self.parsing.known,
                None if of_identity is None else ReferencePool.of_references(of_identity, name),
            )
            arrays |= {f"model/{name}/{path}": array for path, array in rows.arrays.items()}
            arrays |= scales(name, program)
            groups[f"model/{name}"] = attributes(program, settings)
            for tap in program.taps:
                about = {"kind": tap.kind, "warnings": "\n".join(self.warnings[name][tap.name])}
                groups[f"model/{name}/layer/{tap.name}"] = about
            for equal in rows.equal:
                crops.fail(
                    crops.rows[equal].entry,
                    "reference",
                    f"a reference equals the image for {name}: no map of that pair",
                )
            for repeated, (other, cosine) in rows.near.items():
                crops.fail(
                    crops.rows[repeated].entry,
                    "pair",
                    f"near-duplicate of {name_at(other)} for {name} (cosine {cosine:.4f}): left out of pairs",
                )
            for broken in rows.broken:
                crops.fail(
                    crops.rows[broken].entry,
                    "embed",
                    f"embedding by {name} is not finite or zero: no map",
                )
        counts = Counter(identities) if of_identity is None else {0: len(of_identity.positions)}
        for row, identity in zip(crops.rows, identities, strict=True):
            if counts[identity] == 1:
                crops.fail(
                    row.entry, "reference", "only usable image of its identity: embedding kept, no map"
                )
        return Part(shard.number, arrays, groups, tuple(crops.failures))

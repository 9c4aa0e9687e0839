"""The pass before the main one, over the slices of split identities: images -> embeddings that slices share.

A slice compares its images with those of its identity's other slices, so their embeddings are made first and
laid into the run folder. A run without slices has no such pass.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from leamfast.engine.ahead import CropsAhead
from leamfast.engine.batch import BatchFunction
from leamfast.engine.batches import pack
from leamfast.engine.crops import Crops, make_crops
from leamfast.engine.maps import unit_embeddings
from leamfast.engine.part_arrays import stack
from leamfast.engine.plan import Shard
from leamfast.engine.progress import WorkProgress
from leamfast.engine.run import RunReport, run
from leamfast.engine.site import Site
from leamfast.engine.slices import SplitReferences
from leamfast.faces.parse import parse_parser
from leamfast.leam.program import Program
from leamfast.store.part import PartError
from leamfast.store.references import ReferenceFiles, ReferencePart, read_references, write_references
from leamfast.store.run_folder import RunFolder

__all__ = ["EmbedFunction", "ReferenceSink", "make_references"]


class EmbedFunction:
    """Slice -> embeddings of its usable images by every model.

    Args:
        main: the function of the main pass, whose models and detector serve here too.
    """

    def __init__(self, main: BatchFunction) -> None:
        self.main = main

    def __getstate__(self) -> dict[str, BatchFunction]:
        return {"main": self.main}

    @cached_property
    def crops(self) -> CropsAhead:
        """Who makes crops."""
        return CropsAhead(self.prepare)

    def load(self, programs: Mapping[str, bytes]) -> None:
        """Load the models now: see `BatchFunction.load`."""
        self.main.load(programs)

    def prepare(self, shard: Shard) -> Crops:
        """Crops of a slice, without regions, of which embeddings know nothing."""
        main, settings = self.main, self.main.settings
        torch.set_num_threads(settings.threads)  # of this thread, which would take all others
        # Crops of a run with a parser are kept with their regions, and these are not made here.
        cache = None if parse_parser(settings.parser).of_faces else main.known_crops
        return make_crops(shard, settings.root, settings.sizes, main.finding, None, settings.threads, cache)

    def compute(self, shard: Shard, crops: Crops) -> ReferencePart:
        """Embed the crops of a slice."""
        (identity,) = shard.identities
        names = {identity.first + n: entry.name for n, entry in enumerate(identity.entries)}
        pictures = [position for position, _ in crops.pictures]
        return ReferencePart(
            shard.number,
            np.array(pictures, np.int64),
            np.array([fingerprint for _, fingerprint in crops.pictures], dtype=object),
            np.array([names[position] for position in pictures], dtype=object),
            np.array([row.position for row in crops.rows], np.int64),
            {name: self._units(program, crops) for name, program in self.main.programs.items()},
            shard.left_out,
        )

    def __call__(self, shard: Shard, ahead: Shard | None = None) -> ReferencePart:
        """Embed one slice; `ahead` is the one that is probably next."""
        crops = self.crops.take(shard)
        if self.main.overlap and ahead is not None:
            self.crops.begin(ahead)
        return self.compute(shard, crops)

    def _units(self, program: Program, crops: Crops) -> np.ndarray:
        size = program.model.preprocessing.size
        images = stack(crops.images[size], (size, size, 3), np.uint8)
        if not len(images):  # one black crop says how long an embedding is
            return unit_embeddings(program, np.zeros((1, size, size, 3), np.uint8), [[0]]).cpu().numpy()[:0]
        batches = pack([0] * len(images), self.main.settings.maps.batch_size)
        return unit_embeddings(program, images, batches).cpu().numpy()


class ReferenceSink:
    """Writes the embeddings of a slice into a run folder."""

    def __init__(self, root: Path, run: str) -> None:
        self.root, self.run = root, run

    def __call__(self, part: ReferencePart) -> None:
        write_references(RunFolder(self.root).reference(part.shard), replace(part, run=self.run))


def make_references(
    folder: RunFolder,
    plan: Sequence[Shard],
    left: Sequence[Shard],
    function: BatchFunction,
    run_sha256: str,
    site: Site,
    note: Callable[[str], None],
) -> RunReport:
    """Make what the slices among the shards that are left need, and tell `function` where it lies.

    Args:
        folder: of the run.
        plan: all shards.
        left: those that are to be computed.
        function: of the main pass.
        run_sha256: of the run's frozen settings.
        site: where it is computed.
        note: told of files that are damaged.

    Returns:
        How it went; `failed` are those of `left` that cannot be computed now, because their identity has a
        slice that could not be embedded.
    """
    needed = {shard.split for shard in left if shard.split is not None}
    function.references = SplitReferences(
        {s.start: ReferenceFiles(folder.root, s.start, s.slices, run_sha256) for s in needed}
    )
    slices = [shard for shard in plan if shard.split in needed and not shard.closes]
    missing = [shard for shard in slices if not _there(folder, shard, run_sha256, note)]
    if not missing:
        return RunReport()
    total = sum(shard.images for shard in slices)
    done = total - sum(shard.images for shard in missing)
    with WorkProgress("references", total, done=done, log=folder.progress) as progress:
        report = run(
            missing,
            EmbedFunction(function),
            ReferenceSink(folder.root.resolve(), run_sha256),
            driver=site.driver(folder.root, progress),
            listener=progress,
        )
    report.failed = _without(left, report.failed)
    return report


def _there(folder: RunFolder, shard: Shard, run_sha256: str, note: Callable[[str], None]) -> bool:
    path = folder.reference(shard.number)
    if not path.is_file():
        return False
    try:
        read_references(path, shard.number, run_sha256)
    except PartError as exc:
        note(f"{exc}: it is made again")
        return False
    return True


def _without(left: Sequence[Shard], failed: dict[int, str]) -> dict[int, str]:
    """Slices that are left of identities of which a slice failed -> why."""
    reasons: dict[int, str] = {}
    for shard in left:
        if shard.split is not None:
            for number in shard.split.shards:
                if number in failed:
                    reasons.setdefault(shard.number, f"no references from shard {number}: {failed[number]}")
    return reasons

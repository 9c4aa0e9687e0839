"""The matrix that is computed: a run over synthetic faces, its models, and a block of its images."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from leamfast.datasets.manifest import Manifest
from leamfast.datasets.synthetic import write_dataset
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.engine.occlude import OccludeFunction, OccludePiece
from leamfast.engine.occlude_plan import images_of_model, settings_of
from leamfast.engine.occlude_request import OccludeRequest, default_batch
from leamfast.engine.occlude_settings import OccludeSettings
from leamfast.engine.occlusion_models import OcclusionModels, evaluated_models
from leamfast.engine.prepare import read_data
from leamfast.engine.run_request import request_of
from leamfast.leam.program import Program
from leamfast.store.results import open_results
from leamfast.store.run_folder import RunFolder
from leamfast_bench.occlusion.drawn import with_weights
from leamfast_bench.occlusion.form import Form

__all__ = ["Case", "Counted", "explained", "open_case"]


@dataclass(frozen=True, eq=False)
class Case:
    """A block of a pass.

    Attributes:
        root: the run.
        manifest: its images.
        settings: of the pass.
        models: who embeds, and their programs.
        prepared_seconds: what loading and compiling them took.
        piece: images of a call.
    """

    root: Path
    manifest: Manifest
    settings: OccludeSettings
    models: OcclusionModels
    prepared_seconds: float
    piece: OccludePiece

    def function(self) -> OccludeFunction:
        """What computes the block, with the programs at hand."""
        return OccludeFunction(self.settings, self.manifest, self.models.programs)

    def counting(self) -> tuple[OccludeFunction, dict[str, "Counted"]]:
        """Likewise, with programs that count the images that they embed."""
        counted = {name: Counted(program) for name, program in self.models.programs.items()}
        return OccludeFunction(self.settings, self.manifest, counted), counted


class Counted(Program):
    """A program that counts what it embeds.

    Attributes:
        images: so many, since it was made.
    """

    def __init__(self, program: Program) -> None:
        self.__dict__ |= program.__dict__
        self.images = 0

    def embed(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return super().embed(images)


def explained(
    models: tuple[str, ...], layers: str, people: int, images: int, threads: int, device: str, folder: Path
) -> Path:
    """A finished run over synthetic faces, in a folder that is empty so far."""
    write_dataset(folder / "faces", identities=people, images=images)
    request = BatchRequest(
        folder / "faces",
        folder / "run",
        tuple(with_weights(model, folder) for model in models),
        layers=(layers,),
        align="none",
        parser="none",
        backend="eager",
        threads=threads,
        device=device,
    )
    run_batch(request, note=lambda text: None)  # warnings of taps, as ever
    return folder / "run"


def open_case(root: Path, form: Form, threads: int, device: str, note: Callable[[str], None]) -> Case:
    """The pass over a run, its models ready.

    Args:
        root: the run.
        form: percents, controls, seeds, and how many images a call has.
        threads, device: who computes.
        note: told of what takes time.
    """
    request = OccludeRequest(
        root,
        percents=form.percents,
        controls=form.controls,
        seeds=form.seeds,
        threads=threads,
        device=device,
    )
    batch = request_of(RunFolder(root), None)
    with open_results(root, with_pairs=False) as results:
        images = images_of_model(results, results.models, form.percents, form.controls, form.seeds, ())
        started = time.perf_counter()
        models = evaluated_models(
            request, batch, results, images * form.expected // len(results), threads, None, note
        )
        prepared = time.perf_counter() - started
        frozen: dict[str, Any] = {"sources": results.models, "percents": form.percents, "fills": ("black",)}
        frozen |= {"controls": form.controls, "threads": threads, "batch_size": default_batch(device)}
        settings = settings_of(request, batch, results, models.evaluated, frozen)
    piece = OccludePiece(0, 1, 0, form.rows, np.full(form.rows, -1))
    return Case(root, read_data(batch, lambda text: None), settings, models, prepared, piece)

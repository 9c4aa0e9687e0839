"""Maps plus store: a whole run over synthetic crops, and what share of it is maps."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from leamfast import LEAM
from leamfast.datasets.synthetic import write_dataset
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast_bench.maps.case import Case
from leamfast_bench.maps.timing import timed

__all__ = ["whole_run"]

PHOTOS = 4  # of each person


def whole_run(case: Case, spec: str, backend: str, people: int, threads: int) -> dict[str, Any]:
    """Images/s of `leamfast batch`, from reading the pictures to the index, beside maps alone.

    Args:
        case: gives images for maps alone, in batches as large as those of the run.
        spec: of its model.
        backend: of both.
        people: how many, with four pictures each.
        threads: of the run's process.
    """
    count, batch = people * PHOTOS, len(case.images)
    leam = LEAM(case.model, layers=case.taps, target="loss", backend=backend)
    for _ in range(2):
        leam(case.images, case.references)  # whatever specialises late has done so

    def maps_alone(count: int) -> None:
        for begin in range(0, count, batch):
            part = slice(0, min(batch, count - begin))
            leam(case.images[part], case.references[part])

    # One half before the run and one after it, so that both see the machine as it was.
    maps_seconds = timed(partial(maps_alone, count // 2), case.device)
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    with TemporaryDirectory() as folder:
        data, out = Path(folder) / "faces", Path(folder) / "run"
        write_dataset(data, identities=people, images=PHOTOS)
        request = BatchRequest(
            data, out, (spec,), layers=(",".join(case.taps),), align="none", parser="none",
            batch_size=batch, backend=backend, threads=threads, device=case.device,
        )  # fmt: skip
        report = run_batch(request, note=lambda text: None)  # warnings of taps, as ever
        stored = sum(file.stat().st_size for file in out.rglob("*.h5"))
    cudnn.deterministic, cudnn.benchmark = before
    maps_seconds += timed(partial(maps_alone, count - count // 2), case.device)
    return {
        "images": report.images,
        "batch": batch,
        "backend": backend,
        "maps_seconds": maps_seconds,
        "maps_images_per_second": count / maps_seconds,
        "run_seconds": report.seconds,
        "run_images_per_second": report.images_per_second,
        "share_of_maps": maps_seconds / report.seconds,
        "stored_bytes": stored,
    }

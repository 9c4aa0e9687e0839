"""The most memory that a whole pass takes, by the number of images of the run."""

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from leamfast.engine.occlude_request import OccludeRequest
from leamfast.engine.occlude_run import run_occlude
from leamfast_bench.engine.apart import apart
from leamfast_bench.faces.environment import environment
from leamfast_bench.maps.memory import peak_memory
from leamfast_bench.occlusion.case import explained
from leamfast_bench.occlusion.form import Form

__all__ = ["measure_memory", "pass_growth"]

GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}  # whatever is larger, as soon as it is freed
PHOTOS = 4  # of each person


def measure_memory(
    form: Form, threads: int, device: str, folder: Path, note: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Peaks of passes over runs of several sizes, each in a process of its own.

    glibc keeps freed blocks, so that a process may grow after it holds no more than before: here what is
    freed is given back at once.

    Args:
        form: numbers of images, fewest first, and the model, percents, controls and seeds.
        threads, device: who computes.
        folder: for runs.
        note: told of progress.
    """
    found = []
    for count in form.remembered:
        place = folder / f"{count}"
        place.mkdir()
        people = -(-count // PHOTOS)
        root = explained((form.remembered_model,), form.layers, people, PHOTOS, threads, device, place)
        asked = form.percents, form.controls, form.seeds
        with environment(**GIVEN_BACK):
            peak = apart(pass_growth, root, *asked, threads, device)
        found.append({"images": people * PHOTOS, "held_bytes": peak})
        if peak is not None:
            note(f"  {people * PHOTOS} images: {peak / 2**20:.0f} MiB")
    return found


def pass_growth(
    root: Path,
    percents: Sequence[float],
    controls: Sequence[str],
    seeds: int,
    threads: int,
    device: str,
) -> int | None:
    """Bytes that a pass holds beyond what a small one has loaded; None where the system does not tell."""

    def occlude(some: Sequence[float], of: Sequence[str], draws: int) -> None:
        request = OccludeRequest(
            root,
            percents=tuple(some),
            controls=tuple(of),
            seeds=draws,
            backend="eager",
            threads=threads,
            device=device,
            overwrite=True,
        )
        with redirect_stderr(StringIO()):  # progress that is of no interest here
            run_occlude(request, note=lambda text: None)

    occlude(percents[:1], ("own", "random"), 1)
    return peak_memory(lambda: occlude(percents, controls, seeds), device)

"""`leamfast bench faces`: from photos to maps, on photos and with a detector of the user's.

Four questions: how many photos a second are decoded, searched and aligned by one process and by two; our
detection beside facer's; what is left to be done before the first map when the photos were seen before; and
what region masks cost between maps and shares. Whatever is compared gave equal results first.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leamfast.datasets.synthetic import write_dataset
from leamfast.engine.batch_run import BatchRequest
from leamfast.errors import RequestError
from leamfast.faces.detection import parse_detector
from leamfast.models.devices import device_name
from leamfast_bench.faces.cached import measure_cached
from leamfast_bench.faces.detection import measure_detection
from leamfast_bench.faces.environment import environment
from leamfast_bench.faces.photos import write_photos
from leamfast_bench.faces.processes import measure_processes
from leamfast_bench.faces.shares import measure_shares
from leamfast_bench.faces.tables import tables
from leamfast_bench.registry import Benchmark, Options

__all__ = ["BENCHMARK", "FULL", "SMALL", "Form"]


@dataclass(frozen=True)
class Form:
    """How much is measured.

    Attributes:
        photos: that are decoded, searched and aligned by each detector, and explained in the cached run.
        rounds: of each number of processes.
        searched: photos that our detection and facer's search.
        detections: rounds of these.
        repeats: runs with filled caches.
        people: synthetic ones with four crops each, of which shares are taken.
    """

    photos: int
    rounds: int
    searched: int
    detections: int
    repeats: int
    people: int


FULL = Form(photos=1000, rounds=5, searched=200, detections=9, repeats=3, people=64)
SMALL = Form(photos=64, rounds=1, searched=16, detections=3, repeats=1, people=8)


def run(options: Options) -> dict[str, Any]:
    """All of it, in temporary folders, with caches of its own."""
    if options.data is None or not options.detector:
        raise RequestError(
            "benchmark faces needs photos and a detector of yours: "
            "--data DIR --detector retinaface=FILE (or dlib; several may be given)"
        )
    form = SMALL if options.small else FULL
    specs = [parse_detector(text) for text in options.detector]
    found: dict[str, Any] = {"device": device_name(options.device), "threads": options.threads}
    found |= {"form": asdict(form), "model": _model(options), "left_out": {}}
    with TemporaryDirectory(prefix="leamfast-bench-") as name:
        folder = Path(name)
        photos = folder / "photos"
        options.note(f"{form.photos} photos made of those of {options.data}")
        write_photos(options.data, photos, form.photos)
        with environment(XDG_CACHE_HOME=str(folder / "caches")):
            found["processes"] = [
                _processes(text, photos, folder, form, options) for text in options.detector
            ]
            retinaface = [spec for spec in specs if spec.name == "retinaface"]
            if retinaface:
                options.note("detection, beside facer")
                found["detection"] = measure_detection(
                    retinaface[0], photos, form.searched, form.detections, options.device, options.note
                )
            else:
                found["left_out"]["detection"] = "facer has no other detector than RetinaFace"
            found["cached"] = _cached(photos, folder, form, options)
            options.note("region shares")
            found["shares"] = _shares(folder, form, options)
    return found


def _processes(detector: str, photos: Path, folder: Path, form: Form, options: Options) -> dict[str, Any]:
    options.note(f"one process and two, {detector.partition('=')[0]}")
    return measure_processes(
        detector,
        photos,
        folder / "crops",
        rounds=form.rounds,
        threads=options.threads,
        device=options.device,
        note=options.note,
    )


def _cached(photos: Path, folder: Path, form: Form, options: Options) -> list[dict[str, Any]]:
    options.note(f"a run with empty caches and with filled ones, {_model(options).partition('=')[0]}")
    request = BatchRequest(
        photos,
        folder / "run",
        (_model(options),),
        detector=options.detector[0],
        parser="none",
        threads=options.threads,
        device=options.device,
    )
    return measure_cached(request, folder / "run-caches", form.repeats, options.note)


def _shares(folder: Path, form: Form, options: Options) -> list[dict[str, Any]]:
    faces = folder / "faces"
    write_dataset(faces, identities=form.people, images=4)
    request = BatchRequest(
        faces,
        folder / "shares",
        (_model(options),),
        align="none",
        backend="eager",
        threads=options.threads,
        device=options.device,
    )
    return measure_shares(request)


def _model(options: Options) -> str:
    return options.model or "demo"


BENCHMARK: Benchmark = Benchmark(
    "speed of what comes before maps: detection, alignment and their caches, on photos of yours",
    ("data", "detector", "model"),
    run,
    tables,
)

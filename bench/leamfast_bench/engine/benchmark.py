"""`leamfast bench engine`: what the engine and its store add to the work that they carry.

How much more two workers do than one, on real work and on naps; what lies between two pieces; how long a
run on Ray takes to begin; whether GPUs that are none are kept busy; memory by the number of images; how fast
parts are written and maps are read. What comes out is checked before it counts: every piece once, and values
equal.
"""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leamfast.datasets.synthetic import write_dataset
from leamfast.errors import RequestError
from leamfast.models.devices import device_name
from leamfast_bench.engine.bars import bars
from leamfast_bench.engine.form import FULL, SMALL, Form
from leamfast_bench.engine.gpus import measure_gpus
from leamfast_bench.engine.memory import measure_memory
from leamfast_bench.engine.overhead import measure_overhead
from leamfast_bench.engine.reading import measure_reading
from leamfast_bench.engine.scaling import PHOTOS, measure_scaling, write_faces
from leamfast_bench.engine.starting import measure_starting
from leamfast_bench.engine.storing import measure_storing
from leamfast_bench.engine.tables import tables
from leamfast_bench.registry import Benchmark, Options

__all__ = ["BENCHMARK"]

ASKED = "it is asked of the full form: leave --small out"
NO_RAY = "it takes a Ray, and this form has none"


def run(options: Options) -> dict[str, Any]:
    """All of it, in temporary folders."""
    if options.device != "cpu" or options.threads != 1:
        raise RequestError(
            "benchmark engine measures workers of one thread on the CPU: leave --device and --threads out"
        )
    form, note = SMALL if options.small else FULL, options.note
    found: dict[str, Any] = {"device": device_name("cpu"), "form": asdict(form), "left_out": {}}
    found |= {"scaling": None, "starting": None, "gpus": None, "overhead": []}
    with TemporaryDirectory(prefix="leamfast-bench-") as name:
        folder = Path(name)

        def place(what: str) -> Path:
            (folder / what).mkdir()
            return folder / what

        note("parts that are written")
        found["storing"] = measure_storing(
            place("storing"), form.writers, form.written_rows, form.written, form.written_rounds, note
        )
        note("maps that are read")
        found["reading"] = measure_reading(
            place("reading"), form.read_parts, form.read_rows, form.reads, note
        )
        note("memory")
        found["memory"] = measure_memory(form.remembered, place("memory"), note)
        note("overhead")
        found["overhead"] = measure_overhead(
            place("overhead"),
            form.places,
            form.shard_seconds,
            form.shards,
            form.shard_rows,
            form.short_seconds,
            form.short,
            note,
        )
        _on_ray(form, options, found, place)
    if options.small:
        found["left_out"]["what was asked"] = ASKED
    return found | {"bars": [] if options.small else bars(found)}


def _on_ray(form: Form, options: Options, found: dict[str, Any], place: Any) -> None:
    """Real runs and their start-up, and GPUs that are none."""
    note = options.note
    if form.copies:
        note("one worker and two, on real work")
        data = write_faces(place("faces"), form.people, form.copies)
        images = PHOTOS * form.people * form.copies
        scaling = measure_scaling(data, images, form.shard_images, form.rounds, place("runs"), note)
        note("start-up")
        found["starting"] = measure_starting(scaling.pop("starts"), form.rounds, note)
        found["scaling"] = scaling
    else:
        found["left_out"] |= {"one worker and two, on real work": NO_RAY, "start-up": NO_RAY}
    if form.device_pieces:
        note("GPUs that are none")
        photos = place("photos")
        write_dataset(photos, identities=4, images=PHOTOS)
        files = sorted(photos.glob("id*/*.png"))
        found["gpus"] = measure_gpus(
            files,
            form.device_photos,
            form.device_pieces,
            form.device_seconds,
            form.device_photos,
            place("devices"),
            note,
        )
    else:
        found["left_out"]["GPUs that are none"] = NO_RAY


BENCHMARK = Benchmark(
    "what the engine adds to its work: scaling, overhead, start-up, memory, writing and reading",
    (),
    run,
    tables,
)

"""`leamfast bench maps`: images a second, ours beside the best loop by hand and other packages.

One cell has all rows; from there one thing at a time changes: batch, layers, model. Several references an
image are asked for in small batches, where repeating the batch takes seconds. Whatever is compared ran in the
same process, in turn, on the same images and references, after it was found right.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from leamfast import RequestError, load_model
from leamfast.models import FaceModel
from leamfast.models.devices import device_name
from leamfast_bench.maps.caches import empty_caches
from leamfast_bench.maps.case import Cell, make_case
from leamfast_bench.maps.exact import exact
from leamfast_bench.maps.expert import expert_rows
from leamfast_bench.maps.fidelity import fidelity
from leamfast_bench.maps.flops import gflop, share_of_peak
from leamfast_bench.maps.measure import measure, ratios
from leamfast_bench.maps.ours import Explainers, backend_of, our_rows
from leamfast_bench.maps.peers import peer_rows
from leamfast_bench.maps.row import Row
from leamfast_bench.maps.tables import tables
from leamfast_bench.maps.whole_run import whole_run
from leamfast_bench.registry import Benchmark, Options

__all__ = ["BENCHMARK", "FULL", "SMALL", "Form"]

FAST = ("ours", "by hand", "floor", "one pass")
EVERYONE = (*FAST, "documented")
SEVERAL = ("ours", "by hand", "repeated")  # no other package knows of several references an image

HEADLINE = Cell("iresnet18=random:0", 9, 16, 1, EVERYONE, 5)
BESIDE = replace(HEADLINE, groups=FAST, rounds=3)


@dataclass(frozen=True)
class Form:
    """How much is measured.

    Attributes:
        cells: the headline first; those of one model stand together.
        faithful: models whose maps are compared with float64, and on how many images.
        faces: of those.
        people: of the whole run, with four pictures each.
    """

    cells: tuple[Cell, ...]
    faithful: tuple[str, ...]
    faces: int
    people: int


FULL = Form(
    (
        HEADLINE,
        *(replace(BESIDE, batch=batch, rounds=7) for batch in (1, 4)),
        replace(BESIDE, batch=32),
        *(replace(BESIDE, taps=taps) for taps in (1, 5)),
        replace(BESIDE, batch=4, references=8, groups=SEVERAL),
        replace(BESIDE, model="iresnet50=random:0"),
        replace(BESIDE, model="mobilefacenet=random:0", rounds=7),
        replace(BESIDE, model="inceptionresnetv1=random:0"),
    ),
    ("demo", "iresnet18=random:0"),
    16,
    48,
)
SMALL = Form(
    (
        replace(HEADLINE, model="demo", batch=4, rounds=2),
        replace(HEADLINE, model="demo", batch=1, references=8, groups=SEVERAL, rounds=2),
    ),
    ("demo",),  # compiled already
    4,
    4,
)


def run(options: Options) -> dict[str, Any]:
    """All cells, how faithful every backend and precision is, and the whole run."""
    form = SMALL if options.small else FULL
    device = device_name(options.device)
    found: dict[str, Any] = {"device": device, "threads": options.threads}
    found |= {"cells": [], "faithful": [], "left_out": {}}
    with empty_caches():
        for spec in dict.fromkeys((*(cell.model for cell in form.cells), *form.faithful)):
            cells = [cell for cell in form.cells if cell.model == spec]
            try:
                model, explainers = load_model(spec, device=options.device), Explainers()
            except RequestError as exc:
                found["left_out"] |= {cell.name: str(exc) for cell in cells}
                continue
            for cell in cells:
                options.note(cell.name)
                found["cells"].append(_cell(model, cell, explainers, options))
            if spec in form.faithful:
                options.note(f"{spec}: against float64")
                case = make_case(model, Cell(spec, 9, form.faces, 1, (), 0))
                found["faithful"] += fidelity(case, exact(case), explainers, options.note)
        first, backend = form.cells[0], backend_of(found["cells"][0]["best"])
        options.note(f"whole run: {first.name}")
        case = make_case(load_model(first.model, device=options.device), first)
        whole = whole_run(case, first.model, backend, form.people, options.threads)
    return found | {"whole": {"cell": first.name} | whole}


def _cell(model: FaceModel, cell: Cell, explainers: Explainers, options: Options) -> dict[str, Any]:
    """Rows of a cell, how much arithmetic an image takes, and what part of the device's peak that is."""
    case = make_case(model, cell)
    rows = [row for row in _rows(explainers, options.device) if row.group in cell.groups]
    needed, device = gflop(case), device_name(options.device)
    results = measure(case, cell, rows, exact(case), options.note)
    for result in results:
        if "images_per_second" in result:
            result["gflops"] = needed * result["images_per_second"]
            result["share_of_peak"] = share_of_peak(result["gflops"], device, result["precision"])
    best, times = ratios(results)
    about = {"cell": cell.name, "model": cell.model, "taps": list(case.taps), "batch": cell.batch}
    about |= {"references": cell.references, "gflop_per_image": needed}
    return about | {"best": best, "ratios": times, "rows": results}


def _rows(explainers: Explainers, device: str) -> Iterable[Row]:
    yield from our_rows(explainers, device)
    yield from expert_rows()
    yield from peer_rows()


BENCHMARK = Benchmark(
    "speed of maps: images a second by our backends, a loop by hand and other packages", (), run, tables
)

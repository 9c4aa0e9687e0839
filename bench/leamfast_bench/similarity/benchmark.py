"""`leamfast bench similarity`: how fast maps are compared, beside POT, geomloss and a bare matrix product.

On a CPU: exact distances of LEAM maps and of their supports beside loops over `ot.emd2` for the same values,
what a lower bound and geomloss miss, and coefficients of all maps with all, their time and their memory. On a
GPU: brackets of distances, and coefficients. What is compared runs in one process, in turn, after it was
found right; what is wrong ends the benchmark.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from leamfast.models.devices import device_name
from leamfast_bench.registry import Benchmark, Options
from leamfast_bench.similarity import loops
from leamfast_bench.similarity.approximate import measure_approximate
from leamfast_bench.similarity.bars import MEANS, SINGLES, SUPPORTS, bars
from leamfast_bench.similarity.brackets import measure_all_pairs, measure_brackets
from leamfast_bench.similarity.coefficients import measure_coefficients
from leamfast_bench.similarity.exact import measure_exact, on_supports
from leamfast_bench.similarity.explained import Explained, averaged, check_options, explain
from leamfast_bench.similarity.form import FULL, SMALL, Form
from leamfast_bench.similarity.held import measure_held
from leamfast_bench.similarity.pairs import Pairs, draw_pairs
from leamfast_bench.similarity.tables import tables

__all__ = ["BENCHMARK", "run"]

HELD_SIDE = 28
ASKED = "it is asked of the full form: leave --small out"
NO_GPU = "Sinkhorn brackets are for GPUs, as a CPU solves pairs faster than it brackets them: --device cuda"
NO_CPU = "exact distances are solved on the CPU whatever the device: leave --device out to measure them"


def run(options: Options) -> dict[str, Any]:
    """All that the device has, and how it compares with what was asked."""
    check_options(options)
    form = SMALL if options.small else FULL
    note = options.note
    found: dict[str, Any] = {"device": device_name(options.device), "threads": options.threads}
    found |= {"form": asdict(form), "left_out": {}, "exact": [], "approximate": [], "brackets": []}
    found["all_pairs"] = None
    explained = explain(options, form.people, form.images, form.grid, options.data, note)
    found |= {"source": explained.source, "model": explained.model, "layers": list(explained.maps)}
    found |= {"images": explained.images, "people": explained.people}
    if on_gpu(options.device):
        _on_a_gpu(explained, form, options, found)
    else:
        _on_a_cpu(explained, form, options, found)
    found["coefficients"] = measure_coefficients(form.compared, form.cells, form.rounds, options.device, note)
    note("memory")
    found["held"] = measure_held(form.held, HELD_SIDE, form.tile, options.threads, options.device, note)
    if options.small:
        found["left_out"]["what was asked"] = ASKED
    return found | {"bars": [] if options.small else bars(found)}


def on_gpu(device: str) -> bool:
    """Whether brackets are made there."""
    return torch.device(device).type == "cuda"


def _on_a_cpu(explained: Explained, form: Form, options: Options, found: dict[str, Any]) -> None:
    """Exact distances, and what is not exact."""
    found["left_out"]["brackets"] = NO_GPU
    cases: list[tuple[str, Pairs, Callable[[Pairs], loops.Solve]]] = [
        (kind, draw_pairs(_name(kind, form), _on_grid(maps, form), form.pairs), loops.full_grid)
        for kind, maps in ((SINGLES, explained.maps), (MEANS, explained.means))
    ]
    cut = [on_supports(maps, form.side, form.percent) for maps in explained.maps.values()]
    cases.append((SUPPORTS, draw_pairs(_name(SUPPORTS, form), cut, form.supports), loops.supports))
    for kind, pairs, solve in cases:
        case, distances = measure_exact(pairs, solve(pairs), options.threads, form.rounds, options.note)
        found["exact"].append({"kind": kind} | case)
        if kind != SUPPORTS:
            few, rounds = form.approximated, form.approximations
            found["approximate"].append(measure_approximate(pairs, distances, few, rounds, options.note))


def _on_a_gpu(explained: Explained, form: Form, options: Options, found: dict[str, Any]) -> None:
    """Brackets, in the full form those of all pairs of many people too."""
    found["left_out"]["exact"] = NO_CPU
    for kind, maps in ((SINGLES, explained.maps), (MEANS, explained.means)):
        pairs = draw_pairs(_name(kind, form), _on_grid(maps, form), form.bracketed)
        case = measure_brackets(pairs, form.checked, form.rounds, options.device, options.note)
        found["brackets"].append(case)
    if not form.all_people:
        found["left_out"]["all pairs"] = "brackets of all pairs of many people are made in the full form"
        return
    many = explain(options, form.all_people, 2, form.grid, None, options.note)
    means = list(_on_grid(many.means, form))[-1]
    found["all_pairs"] = measure_all_pairs(means, form.checked, options.device, options.note)


def _on_grid(maps: Mapping[str, Tensor], form: Form) -> list[Tensor]:
    return [averaged(values, form.grid) for values in maps.values()]


def _name(kind: str, form: Form) -> str:
    if kind == SUPPORTS:
        return f"supports of {form.percent}% of {form.side}x{form.side}"
    return f"{kind} of {form.grid}x{form.grid}"


BENCHMARK = Benchmark(
    "speed of comparing maps: EMD beside POT and geomloss, BC beside a bare matrix product",
    ("data", "detector", "model"),
    run,
    tables,
)

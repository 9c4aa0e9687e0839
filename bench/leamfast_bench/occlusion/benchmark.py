"""`leamfast bench occlusion`: how fast images are occluded, beside a straightforward loop.

A matrix of percents, controls, seeds and models, by a block of the engine's pass and by loops that do one
occluded image at a time: one compares it with all references, the other begins anew for each pair of an image
and a reference. All occlude the same pixels, and the drops are compared before anything is timed: what is
wrong ends the benchmark. Then where our time goes, how busy a GPU is, and the memory of whole passes
by the number of images.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from leamfast.engine.occlude import OccludeFunction
from leamfast.models.devices import device_name
from leamfast.store.occlusion import OcclusionArrays, OcclusionAxes
from leamfast_bench.maps.timing import interleaved, spread_of
from leamfast_bench.occlusion.bars import bars
from leamfast_bench.occlusion.busy import device_utilisation
from leamfast_bench.occlusion.case import Case, explained, open_case
from leamfast_bench.occlusion.form import FULL, SMALL
from leamfast_bench.occlusion.loop import Drops, Loop, given
from leamfast_bench.occlusion.memory import measure_memory
from leamfast_bench.occlusion.stages import shares_of_stages
from leamfast_bench.occlusion.tables import tables
from leamfast_bench.registry import Benchmark, Options

__all__ = ["BENCHMARK", "EQUAL", "OURS", "WrongDropError", "check_equal", "run"]

OURS, LOOP, PAIRS = "leamfast", "loop", "loop over pairs"
EQUAL = 1e-4  # of drops, which are differences of cosines
ASKED = "it is asked of the full form: leave --small out"
NO_GPU = "there is no device beside the processor: --device cuda"
NO_STAGES = "a GPU works on while the processor goes ahead: its share of the time says more"


class WrongDropError(RuntimeError):
    """What is wrong is not timed."""


def run(options: Options) -> dict[str, Any]:
    """All of it, in a temporary folder."""
    form, device, threads, note = (
        SMALL if options.small else FULL,
        options.device,
        options.threads,
        options.note,
    )
    found: dict[str, Any] = {"device": device_name(device), "threads": threads, "form": asdict(form)}
    found |= {"left_out": {}, "stages": None, "utilisation": None}
    with TemporaryDirectory(prefix="leamfast-bench-") as name:
        folder = Path(name)
        note(f"maps of {form.people * form.images} synthetic faces")
        root = explained(form.models, form.layers, form.people, form.images, threads, device, folder)
        case = open_case(root, form, threads, device, note)
        found |= {"prepared_seconds": case.prepared_seconds, "batch": case.settings.batch}
        found["backends"] = {model.name: model.backend for model in case.settings.evaluated}
        function = case.function()
        try:
            found |= _speed(case, function, form.looped, form.rounds, options)
            note("where the time goes")
            if torch.device(device).type == "cuda":
                found["utilisation"] = device_utilisation(lambda: function(case.piece), device)
                found["left_out"]["stages"] = NO_STAGES
            else:
                found["stages"] = shares_of_stages(lambda: function(case.piece))
                found["left_out"]["share of the time in which the device computes"] = NO_GPU
        finally:
            function.close()
        note("memory")
        (folder / "memory").mkdir()
        found["memory"] = measure_memory(form, threads, device, folder / "memory", note)
    if any(case["held_bytes"] is None for case in found["memory"]):
        found["left_out"]["memory"] = "the system does not tell its peak"
    if options.small:
        found["left_out"]["what was asked"] = ASKED
    return found | {"bars": [] if options.small else bars(found)}


def _speed(
    case: Case, function: OccludeFunction, looped: int, rounds: int, options: Options
) -> dict[str, Any]:
    """Seconds an image of ours and of the loops, once all were found equal."""
    note, s = options.note, case.settings
    about = given(case, function, looped)
    models = {name: program.model for name, program in case.models.programs.items()}
    note("checked, which warms all up")
    counting, counted = case.counting()
    try:
        ours = counting(case.piece)
    finally:
        counting.close()
    function(case.piece)  # it opens its run at its first block
    calls: dict[str, Callable[[], object]] = {OURS: lambda: function(case.piece)}
    images = {OURS: case.piece.rows}
    embedded = {OURS: sum(program.images for program in counted.values()) / case.piece.rows}
    error, maps = 0.0, 0
    for name in (LOOP, PAIRS):
        loop = Loop(about, models, s.percents, s.controls, len(s.seeds), pairs=name == PAIRS)
        wanted = loop(looped)
        error = max(error, check_equal(ours.groups, wanted))
        maps = max(drops.shape[1] for drops in wanted.values())
        embedded[name], images[name] = loop.embedded / looped, looped
        calls[name] = partial(loop, looped)
    rows = []
    for name, seconds in interleaved(calls, dict.fromkeys(calls, rounds), options.device).items():
        low, middle, high = (value / images[name] for value in spread_of(seconds))
        row: dict[str, Any] = {"row": name, "images": images[name], "embedded": round(embedded[name])}
        row |= {"median_seconds": middle, "quartiles": [low, high]}
        row["embedded_a_second"] = embedded[name] / middle
        rows.append(row)
        note(f"  {name}: {middle:.3g} s an image, {row['embedded_a_second']:.0f} occluded ones a second")
    for row in rows:
        row["times_ours"] = row["median_seconds"] / rows[0]["median_seconds"]
    return {"rows": rows, "error": error, "maps": maps}


def check_equal(
    ours: Mapping[tuple[str, str], tuple[OcclusionAxes, OcclusionArrays]], wanted: Drops
) -> float:
    """The largest difference of drops of the images that the loop did.

    Args:
        ours: groups of a block.
        wanted: the drops of the loop, of the first of its images.

    Raises:
        WrongDropError: it is more than `EQUAL`, or a value is missing on one side alone.
    """
    largest = 0.0
    for key, drops in wanted.items():
        found = ours[key][1].drop[: len(drops)]
        error = np.abs(found - drops)
        error[np.isnan(found) & np.isnan(drops)] = 0
        worst = float(np.nan_to_num(error, nan=np.inf).max())
        if not worst <= EQUAL:
            evaluated, source = key
            raise WrongDropError(
                f"drops of {evaluated} by maps of {source}: off by {worst:.2g}, where {EQUAL:g} is allowed"
            )
        largest = max(largest, worst)
    return largest


BENCHMARK = Benchmark(
    "speed of occlusion: the matrix of percents, controls, seeds and models beside a straightforward loop",
    (),
    run,
    tables,
)

"""`leamfast plan`: what a run would do, and how long it would take."""

import inspect
from dataclasses import asdict, replace
from typing import Any

import torch
import typer

from leamfast.cli.batch import asked, batch
from leamfast.cli.output import note, print_json, print_table
from leamfast.engine.batch_plan import BatchPlan, plan_batch
from leamfast.engine.estimate import spoken

__all__ = ["plan"]


def plan(context: typer.Context, **options: Any) -> None:
    """Say what `leamfast batch` would do with the same options: images, shards, bytes, time.

    Nothing is written to --out. Up to three batches of images from all over DATA are computed and timed;
    programs that have to be compiled for that are kept in the user's cache, for the run.
    """
    request = asked(context, needed=("data", "model"))
    workers = request.gpus or max(1, request.workers)
    if request.on_ray:  # measured here all the same
        device = "cuda" if request.gpus and torch.cuda.is_available() else "cpu"
        if request.gpus and device == "cpu":
            note(
                "torch sees no GPU on this machine: measured on its processor, as actors without one compute"
            )
        request = replace(request, gpus=0, address=None, device=device)
    found = plan_batch(request, note, workers)
    if options["as_json"]:
        print_json(asdict(found))
    else:
        _tell(found)


# The options are those of `batch`, whatever they are: a plan is asked for by changing one word.
plan.__signature__ = inspect.signature(batch)  # type: ignore[attr-defined]


def _tell(found: BatchPlan) -> None:
    done = f", {found.finished_shards} of them finished" if found.finished_shards else ""
    sizes = ", ".join(f"{name} {images:g}" for name, images in found.shard_images.items())
    rows: list[tuple[str, str]] = [
        ("images", f"{found.images} of {found.identities} people"),
        ("largest identity", f"{found.largest_identity}, {found.largest_identity_images} images"),
        ("shards", f"{found.shards}{done}; {sizes} images"),
    ]
    for model in found.models:
        taps = f"{len(model.taps)} taps, {model.taps[0]} .. {model.taps[-1]}"
        rows.append((model.name, f"{model.architecture}, {model.input_size} px, {model.backend}, {taps}"))
    room = "" if found.fits else ": NOT ENOUGH"
    there = f", {_size(found.bytes_there)} of them there" if found.bytes_there else ""
    rows += [
        ("result", f"{_size(found.bytes)}{there}; {_size(found.bytes_free)} free at {found.out}{room}"),
        ("time", _time(found)),
        ("start", f"{spoken(found.setup_seconds)} here, for loading, compiling and a first batch; not in it"),
    ]
    print_table(["", ""], rows)
    if found.usable < found.sample_images:
        note(f"{found.usable} of the {found.sample_images} measured images can be used")


def _time(found: BatchPlan) -> str:
    took = found.time
    about = f"about {spoken(took.seconds)} ({spoken(took.low)} to {spoken(took.high)})"
    if took.high < 1:
        about = spoken(took.high)
    rate = f"{found.images_per_second:.3g} images/s"
    measured = f"measured on {found.sample_images} images, {found.device}, --threads {found.threads}"
    if found.workers == 1:
        return f"{about} at {rate}, {measured}"
    return (
        f"{about} by {found.workers} workers, each assumed to keep "
        f"{found.efficiency:.0%} of the {rate} of one alone, {measured}"
    )


def _size(count: float) -> str:
    """Bytes with three digits: `2.79 MB`."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while len(units) > 1 and round(count) >= 1000:
        count, units = count / 1000, units[1:]
    return f"{count:.3g} {units[0]}"

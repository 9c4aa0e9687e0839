"""Runs that are occluded in tests: how they are made, and what they stored."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from leamfast import open_results
from leamfast.engine import occlude_plan
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.engine.occlude_request import OccludeRequest
from leamfast.engine.occlude_run import OccludeReport, run_occlude
from leamfast.faces.regions import REGIONS
from leamfast.leam.fused import normalise
from leamfast.leam.stored import to_stored
from leamfast.store.index import write_index
from leamfast.store.occlusion import OcclusionArrays, OcclusionAxes
from leamfast.store.part import read_part, write_part
from tests.engine.occlusion_networks import PREPROCESSING, spec

TAPS = "conv1,conv2"
IMAGES = (4, 3, 2, 1, 4)
"""Of five people, one of whom has a single image and so no reference."""
SMALL = {"percents": (2.0, 20.0), "seeds": 2, "threads": 1, "trust_code": True}

FEW = {
    **SMALL,
    "controls": ("random", "shifted", "other-identity", "population", "master"),
    "percents": (20.0,),
}
"""For what is about files, not values."""


def some_faces(faces: Path, data: Path, images: Sequence[int]) -> Path:
    """A copy of synthetic faces with so many images of each person."""
    kept = [
        f"id{person:04d}/{number:03d}.png" for person, count in enumerate(images) for number in range(count)
    ]
    for person, count in enumerate(images):
        for folder in (faces, faces / ".labels"):
            own = data / folder.relative_to(faces) / f"id{person:04d}"
            own.mkdir(parents=True)
            for number in range(count):
                shutil.copy(folder / f"id{person:04d}" / f"{number:03d}.png", own)
    head, *lines = (faces / "manifest.csv").read_text().splitlines()
    of_kept = [line for line in lines if line.startswith(tuple(kept))]
    assert len(of_kept) == len(kept)
    (data / "manifest.csv").write_text("\n".join([head, *of_kept]) + "\n")
    return data


def tiny_run(
    data: Path, out: Path, models: Sequence[str] = ("one",), more: Sequence[str] = (), **options
) -> Path:
    """A run of tiny networks, and of what SPECs in `more` name."""
    asked = {"layers": (TAPS,), "align": "none", "shard_images": 6, "batch_size": 4, "threads": 1, **options}
    given = {name: PREPROCESSING[name] for name in models if name in PREPROCESSING}
    request = BatchRequest(
        data=data, out=out, model=(*map(spec, models), *more), trust_code=True, preprocessing=given, **asked
    )
    run_batch(request, note=lambda text: None)
    return out


def occlude(out: Path, note=lambda text: None, **options) -> OccludeReport:
    return run_occlude(OccludeRequest(out, **{**SMALL, **options}), note)


def occlude_few(out: Path, note=lambda text: None, **options) -> OccludeReport:
    return occlude(out, note, **{**FEW, **options})


def occluded_copy(run: Path, out: Path) -> Path:
    """A copy of a run of `IMAGES`, occluded in four blocks."""
    shutil.copytree(run, out)
    report = occlude_few(out)
    assert (report.blocks, report.skipped, report.failed_blocks, report.images) == (4, 0, 0, sum(IMAGES))
    assert (report.complete, report.interrupted, report.left_out) == (True, False, {})
    return out


@contextmanager
def small_blocks() -> Iterator[None]:
    """Four blocks a run, as a large one has many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(occlude_plan, "IMAGES", {"cpu": 1})
        patch.setattr(occlude_plan, "BLOCKS", 4)
        yield


def stored(out: Path, evaluated: str = "one", source: str = "one") -> tuple[OcclusionAxes, OcclusionArrays]:
    with open_results(out) as results:
        return results.occlusion_axes(evaluated, source), results.occlusion(evaluated, source)


def replace_maps(out: Path, change: Callable[[str, np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Put other maps into a run with one map an image, and their means with them.

    Args:
        out: the run.
        change: tap, first row of the part and its maps (n, h, w) float32 -> others, not negative; a map of
            zeros stands for one that is zero.
    """
    paths = sorted((out / "shards").glob("part-*.h5"))
    first = 0
    for path in paths:
        part = read_part(path)
        arrays = dict(part.arrays)
        for name in [name for name in arrays if name.endswith("/map")]:
            group, people = name.removesuffix("/map"), arrays["image/identity"].values
            before = arrays[name].values.astype(np.float32)
            maps, scale = to_stored(torch.from_numpy(change(group.split("/")[-1], first, before)))
            shares = normalise(maps.double()).numpy()
            means = np.full((part.persons, *maps.shape[1:]), np.nan)
            for person in np.unique(people[scale.numpy() > 0]):
                means[person] = shares[(people == person) & (scale.numpy() > 0)].mean(axis=0)
            for field, values in (("map", maps.numpy()), ("scale", scale.numpy()), ("identity_map", means)):
                whole = arrays[f"{group}/{field}"]
                arrays[f"{group}/{field}"] = replace(whole, values=values.astype(whole.values.dtype))
        first += part.rows
        write_part(path, replace(part, arrays=arrays))
    write_index(out, paths, len(paths), REGIONS)

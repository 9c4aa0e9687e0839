"""The maps that are compared: a run of `leamfast batch` over synthetic faces or photos of the user's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from leamfast import RequestError, open_results
from leamfast.datasets.synthetic import write_dataset
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast_bench.registry import Options

__all__ = ["Explained", "averaged", "check_options", "explain"]


@dataclass(frozen=True, eq=False)
class Explained:
    """Maps of a run, of every tap that has as many cells as are compared.

    Attributes:
        source: whose faces, for people.
        model: its name.
        images: how many, of
        people: so many.
        maps: of images by tap, (N, h, w), float32, and
        means: of identities by tap, (P, h, w); those that are not zero.
    """

    source: str
    model: str
    images: int
    people: int
    maps: Mapping[str, Tensor]
    means: Mapping[str, Tensor]


def check_options(options: Options) -> None:
    """Raise a RequestError where photos and detector make no sense."""
    if options.detector and options.data is None:
        raise RequestError("--detector is for photos: give --data DIR with it, or neither")
    if len(options.detector) > 1:
        raise RequestError(
            f"benchmark similarity takes one --detector, got {len(options.detector)}: its maps are of one run"
        )


def explain(
    options: Options, people: int, images: int, least: int, data: Path | None, note: Callable[[str], None]
) -> Explained:
    """Compute maps.

    Args:
        options: model, detector, device and threads; without a detector, photos are crops already.
        people: synthetic ones, where there are no photos.
        images: of each.
        least: cells a side that a tap must have.
        data: photos of the user's.
        note: told what is done.

    Raises:
        RequestError: no tap has so many cells, or the request makes no sense.
    """
    source = f"{people * images} synthetic faces" if data is None else "photos"
    note(f"maps of {source}")
    with TemporaryDirectory(prefix="leamfast-bench-") as name:
        folder = Path(name)
        if data is None:
            write_dataset(folder / "faces", identities=people, images=images)
        photos = data is not None and options.detector
        request = BatchRequest(
            data or folder / "faces",
            folder / "run",
            (options.model or "demo",),
            align="arcface" if photos else "none",
            detector=options.detector[0] if photos else None,
            parser="none",
            backend="eager",
            threads=options.threads,
            device=options.device,
        )
        report = run_batch(request, note=lambda text: None)  # warnings of taps, as ever
        with open_results(folder / "run") as results:
            (model,) = results.models
            maps, means = {}, {}
            for tap in results.taps(model):
                found = torch.from_numpy(results.map(model, tap))
                if min(found.shape[1:]) < least:
                    continue
                of_people = results.file[f"model/{model}/layer/{tap}/identity_map"][...]
                maps[tap], means[tap] = _usable(found), _usable(torch.from_numpy(of_people))
    if not maps:
        raise RequestError(f"--model {model} has no layer of {least}x{least} cells, as are compared here")
    return Explained(source, model, report.images, report.identities, maps, means)


def _usable(maps: Tensor) -> Tensor:
    """Those that are not zero and hold no NaN."""
    return maps[maps.flatten(1).sum(dim=1) > 0]


def averaged(maps: Tensor, grid: int) -> Tensor:
    """Maps on a grid of fewer cells, each of which takes of a finer one what it covers: mass is kept.

    >>> averaged(torch.tensor([[[1.0, 2.0, 3.0]] * 3]), 2)
    tensor([[[3., 6.],
             [3., 6.]]])
    """
    if tuple(maps.shape[1:]) == (grid, grid):
        return maps
    rows, columns = (_covered(cells, grid) for cells in maps.shape[1:])
    return (rows @ maps.double() @ columns.T).to(maps.dtype)


def _covered(cells: int, grid: int) -> Tensor:
    """Which part of each fine cell lies in each coarse one, (grid, cells)."""
    coarse, fine = (torch.arange(n + 1, dtype=torch.float64) / n for n in (grid, cells))
    ends = torch.minimum(coarse[1:, None], fine[1:])
    starts = torch.maximum(coarse[:-1, None], fine[:-1])
    return (ends - starts).clamp_min(0) * cells

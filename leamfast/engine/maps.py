"""Maps of the rows of a shard by one model: batches in, stored arrays out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from leamfast.engine.batches import pack
from leamfast.faces.regions import REGIONS
from leamfast.leam.fused import fuse, normalise
from leamfast.leam.program import Program
from leamfast.leam.references import SAME, draw_references, leave_one_out, unit
from leamfast.leam.registration import Centres
from leamfast.leam.stored import to_stored
from leamfast.models.devices import upload
from leamfast.store.arrays import NO_LABEL, THRESHOLDS, Array
from leamfast_kernels import region_share

__all__ = ["MapSettings", "ModelRows", "map_rows"]


@dataclass(frozen=True)
class MapSettings:
    """How maps are made of rows: reference policy, its draws, and the size of a batch."""

    references: str
    max_references: int
    seed: int
    batch_size: int


@dataclass(frozen=True)
class ModelRows:
    """Arrays of one model by their path below `/model/<name>`, and rows without all of their maps.

    Attributes:
        arrays: the arrays.
        equal: rows that equal a reference.
        broken: rows whose embedding is not finite, or zero.
    """

    arrays: dict[str, Array]
    equal: list[int]
    broken: list[int]


def map_rows(
    program: Program,
    crops: np.ndarray,
    labels: np.ndarray | None,
    identities: Sequence[int],
    positions: Sequence[int],
    persons: int,
    settings: MapSettings,
) -> ModelRows:
    """Embeddings, maps, region shares and identity maps of a shard's rows.

    Args:
        program: the model's program.
        crops: uint8, (n, size, size, 3).
        labels: uint8, (n, size, size), 255 where a row has none; or None for a run without region masks.
        identities: number of each row's identity within the shard; equal ones adjacent.
        positions: each row's position in the manifest, which seeds its draws.
        persons: number of identities in the shard.
        settings: see `MapSettings`.
    """
    if len(identities) == 0:
        return _no_rows(program, labels is not None, persons, settings)
    pieces: dict[str, list[Tensor]] = {}
    each: dict[str, list[Tensor]] = {}
    size = crops.shape[1]
    batches = pack(identities, settings.batch_size)
    units = _first_pass(program, crops, identities, batches, settings)
    members: dict[int, list[int]] = {}
    for row, identity in enumerate(identities):
        members.setdefault(identity, []).append(row)
    for batch in batches:
        references, rows = _references(batch, identities, members, positions, units, settings)
        images = program.model.preprocess(crops[batch])
        if references is None:
            output = program(images, leave_one_out(torch.tensor([identities[row] for row in batch])))
        else:
            output = program(images, references=references)
        same = output.cosines > 1 - SAME
        _keep(pieces, {"equal": same.reshape(len(batch), -1).any(dim=1)})
        label = None if labels is None else torch.from_numpy(labels[batch])
        _keep(pieces, {"embedding": output.embeddings})
        stored = {}
        for tap, maps in output.maps.items():
            maps = maps.masked_fill(same[..., None, None], torch.nan)
            if rows is not None:
                if settings.references == "each":
                    _keep(each, _each(f"layer/{tap}/each", maps, batch, rows))
                maps = normalise(maps).nanmean(dim=1)
            stored[tap], scale = to_stored(maps)
            _keep(pieces, {f"layer/{tap}/map": stored[tap], f"layer/{tap}/scale": scale})
            _keep(pieces, _shares(f"layer/{tap}", stored[tap].float(), label, size, program.centres[tap]))
        fused = fuse([maps.float() for maps in stored.values()], size, program.centres.values())
        _keep(pieces, _shares("fused", fused, label, size))

    if program.model.device.type == "cuda":
        torch.cuda.synchronize(program.model.device)  # the copies to the host are on their way
    equal = torch.cat(pieces.pop("equal")).nonzero().flatten().tolist()
    arrays = {name: _array(name, torch.cat(values)) for name, values in (pieces | each).items()}
    for tap in stored:
        means = _identity_maps(arrays[f"layer/{tap}/map"].values, identities, persons)
        arrays[f"layer/{tap}/identity_map"] = Array(means, ("person", "h", "w"))
    norms = np.linalg.norm(arrays["embedding"].values, axis=1)
    broken = np.flatnonzero(~(np.isfinite(norms) & (norms > 0))).tolist()
    return ModelRows(arrays, equal, broken)


def _no_rows(program: Program, labelled: bool, persons: int, settings: MapSettings) -> ModelRows:
    """The arrays of a shard without a usable image: those of one black crop, emptied."""
    size = program.model.preprocessing.size
    black = np.zeros((1, size, size, 3), np.uint8)
    labels = black[..., 0] if labelled else None
    arrays = map_rows(program, black, labels, [0], [0], persons, settings).arrays
    kept = {
        name: array.values[:0] if array.dims[0] != "person" else array.values
        for name, array in arrays.items()
    }
    return ModelRows({name: replace(arrays[name], values=values) for name, values in kept.items()}, [], [])


def _first_pass(
    program: Program,
    crops: np.ndarray,
    identities: Sequence[int],
    batches: Sequence[Sequence[int]],
    settings: MapSettings,
) -> Tensor | None:
    """Unit embeddings of all rows, (n, D), where references cannot be had inside one batch; else None."""
    counts = np.bincount(identities)
    if settings.references == "mean" and counts.max() <= settings.batch_size:
        return None
    preprocess = program.model.preprocess
    units = unit(torch.cat([program.embed(preprocess(crops[batch])) for batch in batches]))
    return units.masked_fill(~units.isfinite().all(dim=1, keepdim=True), 0)


def _references(
    batch: Sequence[int],
    identities: Sequence[int],
    members: Mapping[int, Sequence[int]],
    positions: Sequence[int],
    units: Tensor | None,
    settings: MapSettings,
) -> tuple[Tensor | None, Tensor | None]:
    """References of a batch's rows, and which rows they are.

    Returns:
        `mean`: (B, D), or None where the batch holds whole identities; and None.
        `each`, `mean-map`: (B, R, D) with NaN rows as padding; and row numbers (B, R), padded with -1.
    """
    if settings.references == "mean":
        others = members[identities[batch[0]]]
        if units is None or len(others) <= settings.batch_size:
            return None, None
        return (units[others].sum(dim=0) - units[batch]) / (len(others) - 1), None
    assert units is not None
    drawn = []
    for row in batch:
        row_of = {positions[other]: other for other in members[identities[row]]}
        wanted = draw_references(list(row_of), positions[row], settings.max_references, settings.seed)
        drawn.append([row_of[position] for position in wanted])
    most = max(1, max(map(len, drawn)))
    rows = torch.tensor([row + [-1] * (most - len(row)) for row in drawn])
    references = units[upload(rows, units.device)]
    return references.masked_fill(upload((rows < 0)[..., None], units.device), torch.nan), rows


def _each(group: str, maps: Tensor, batch: Sequence[int], rows: Tensor) -> dict[str, Tensor]:
    """Maps (B, R, h, w) one by one, without padding and without references equal to their image."""
    found = ~maps[..., 0, 0].isnan()
    stored, scale = to_stored(maps[found])
    image_row = torch.tensor(batch)[:, None].expand(rows.shape)
    return {
        f"{group}/map": stored,
        f"{group}/scale": scale,
        f"{group}/image_row": image_row[found.cpu()],
        f"{group}/reference_row": rows[found.cpu()],
    }


def _shares(
    group: str, maps: Tensor, labels: Tensor | None, size: int, centres: Centres | None = None
) -> dict[str, Tensor]:
    """Support sizes and, where there are region masks, region shares of maps (B, h, w)."""
    unlabelled = torch.ones(len(maps), dtype=torch.bool)
    filled = torch.zeros(len(maps), size, size, dtype=torch.uint8)
    if labels is not None:
        unlabelled = labels[:, 0, 0] == NO_LABEL
        filled = labels.masked_fill(unlabelled[:, None, None], 0)
    shares, sizes = region_share(
        maps, upload(filled, maps.device), THRESHOLDS, size, centres, classes=len(REGIONS)
    )
    if labels is None:
        return {f"{group}/support_size": sizes}
    shares = shares.masked_fill(upload(unlabelled[:, None, None], maps.device), torch.nan)
    return {f"{group}/support_size": sizes, f"{group}/region_share": shares}


def _keep(pieces: dict[str, list[Tensor]], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        pieces.setdefault(name, []).append(_to_host(value))


def _to_host(value: Tensor) -> Tensor:
    """The value in host memory; from a GPU it is on its way there, while the next batch is computed."""
    if not value.is_cuda:
        return value
    host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    return host.copy_(value, non_blocking=True)


def _array(name: str, values: Tensor) -> Array:
    *_, group, field = ("", *name.split("/"))
    leading = "each" if group == "each" else "row"
    dims = {
        "embedding": ("dimension",),
        "map": ("h", "w"),
        "support_size": ("threshold",),
        "region_share": ("threshold", "region"),
    }
    counts = "row" if field in ("image_row", "reference_row") else ""
    return Array(values.numpy(), (leading, *dims.get(field, ())), counts)


def _identity_maps(maps: np.ndarray, identities: Sequence[int], persons: int) -> np.ndarray:
    """Mean of the sum-normalised maps of each identity, (persons, h, w) float32; NaN where there is none."""
    means = np.full((persons, *maps.shape[1:]), np.nan, np.float32)
    values = maps.astype(np.float64)
    sums = values.sum(axis=(1, 2))
    for person in set(identities):
        rows = [row for row, i in enumerate(identities) if i == person and sums[row] > 0]
        if rows:
            means[person] = (values[rows] / sums[rows, None, None]).mean(axis=0)
    return means

"""Maps of the rows of a shard by one model: batches in, stored arrays out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from leamfast.engine.batches import pack
from leamfast.engine.near_duplicates import near_duplicates
from leamfast.engine.reference_pairs import reference_pairs
from leamfast.engine.shares import Masks, shares
from leamfast.faces.regions import REGIONS
from leamfast.leam.fused import fuse, normalise
from leamfast.leam.program import Program
from leamfast.leam.references import SAME, draw_references, leave_one_out, unit
from leamfast.leam.stored import to_stored
from leamfast.models.devices import upload
from leamfast.store.arrays import Array

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
        near: row -> earlier row of its identity that it nearly repeats, and their cosine.
    """

    arrays: dict[str, Array]
    equal: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    near: dict[int, tuple[int, float]] = field(default_factory=dict)


def map_rows(
    program: Program,
    crops: np.ndarray,
    labels: np.ndarray | None,
    identities: Sequence[int],
    positions: Sequence[int],
    persons: int,
    settings: MapSettings,
    known: Sequence[str] = REGIONS,
) -> ModelRows:
    """Embeddings, maps, region shares and identity maps of a shard's rows.

    Args:
        program: the model's program.
        crops: uint8, (n, size, size, 3).
        labels: uint8, (n, size, size), 255 where nothing is known; or None for a run without region masks.
        identities: number of each row's identity within the shard; equal ones adjacent.
        positions: each row's position in the manifest, which seeds its draws.
        persons: number of identities in the shard.
        settings: see `MapSettings`.
        known: the regions that `labels` can tell.
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
        masks = Masks.of(None if labels is None else labels[batch], len(batch), size, known, same.device)
        _keep(pieces, {"embedding": output.embeddings})
        stored = {}
        for tap, maps in output.maps.items():
            maps = maps.masked_fill(same[..., None, None], torch.nan)
            if rows is not None:
                _keep(each, _each(f"layer/{tap}/each", maps, batch, rows))
                maps = normalise(maps).nanmean(dim=1)
            stored[tap], scale = to_stored(maps)
            _keep(pieces, {f"layer/{tap}/map": stored[tap], f"layer/{tap}/scale": scale})
            _keep(pieces, shares(f"layer/{tap}", stored[tap].float(), masks, size, program.centres[tap]))
        fused = fuse([maps.float() for maps in stored.values()], size, program.centres.values())
        _keep(pieces, shares("fused", fused, masks, size))

    if program.model.device.type == "cuda":
        torch.cuda.synchronize(program.model.device)  # the copies to the host are on their way
    equal = torch.cat(pieces.pop("equal")).nonzero().flatten().tolist()
    arrays = {name: _array(name, torch.cat(values)) for name, values in (pieces | each).items()}
    if settings.references == "mean-map":  # its maps of single references end here
        arrays |= reference_pairs(
            program, {name: arrays.pop(name) for name in each}, identities, settings.seed
        )
    for tap in stored:
        means = _identity_maps(arrays[f"layer/{tap}/map"].values, identities, persons)
        arrays[f"layer/{tap}/identity_map"] = Array(means, ("person", "h", "w"))
    norms = np.linalg.norm(arrays["embedding"].values, axis=1)
    broken = np.flatnonzero(~(np.isfinite(norms) & (norms > 0))).tolist()
    first, cosines = near_duplicates(arrays["embedding"].values, identities)
    arrays["duplicate_of"] = Array(first, ("row",), "row")
    near = {int(row): (int(first[row]), float(cosines[row])) for row in np.flatnonzero(first >= 0)}
    return ModelRows(arrays, equal, broken, near)


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
    return ModelRows({name: replace(arrays[name], values=values) for name, values in kept.items()})


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

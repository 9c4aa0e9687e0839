"""Maps of the rows of a shard by one model: batches in, stored arrays out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from leamfast.engine.batches import pack
from leamfast.engine.near_duplicates import near_duplicates, nearly_repeated
from leamfast.engine.reference_pairs import reference_pairs
from leamfast.engine.reference_pools import ReferencePool
from leamfast.engine.shares import Masks, shares
from leamfast.faces.regions import REGIONS
from leamfast.leam.fused import fuse, normalise
from leamfast.leam.program import Program
from leamfast.leam.references import SAME, leave_one_out, unit
from leamfast.leam.stored import to_stored
from leamfast.store.arrays import Array

__all__ = ["MapSettings", "ModelRows", "map_rows", "unit_embeddings"]


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
        near: row -> position in the manifest of the earlier image of its identity that it nearly repeats, and
            their cosine.
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
    whole: ReferencePool | None = None,
) -> ModelRows:
    """Embeddings, maps, region shares and identity maps of a shard's rows.

    Args:
        program: the model's program.
        crops: uint8, (n, size, size, 3).
        labels: uint8, (n, size, size), 255 where nothing is known; or None for a run without region masks.
        identities: number of each row's identity within the shard; equal ones adjacent.
        positions: each row's position in the manifest, which seeds its draws.
        persons: number of identities that the shard brings; none where it is a slice of one.
        settings: see `MapSettings`.
        known: the regions that `labels` can tell.
        whole: all images of the identity of which the rows are a slice, as number 0.
    """
    if len(identities) == 0:
        return _no_rows(program, labels is not None, persons, settings)
    pieces: dict[str, list[Tensor]] = {}
    each: dict[str, list[Tensor]] = {}
    size = crops.shape[1]
    batches = pack(identities, settings.batch_size)
    pool = whole or _first_pass(program, crops, identities, positions, batches, settings)
    packed = 0 if whole is not None else settings.batch_size
    for batch in batches:
        references, drawn = _references(batch, identities, positions, pool, packed, settings)
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
            if drawn is not None:
                _keep(each, _each(f"layer/{tap}/each", maps, batch, drawn))
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
        own = {name: arrays.pop(name) for name in each}
        arrays |= reference_pairs(
            program, own, identities, positions, settings.seed, settings.max_references, whole
        )
    for tap in stored:
        means = _identity_maps(arrays[f"layer/{tap}/map"].values, identities, persons)
        arrays[f"layer/{tap}/identity_map"] = Array(means, ("person", "h", "w"))
    norms = np.linalg.norm(arrays["embedding"].values, axis=1)
    broken = np.flatnonzero(~(np.isfinite(norms) & (norms > 0))).tolist()
    repeated, cosines = _near_duplicates(arrays["embedding"].values, identities, positions, whole)
    arrays["duplicate_of"] = Array(repeated, ("row",), "position")
    near = {int(row): (int(repeated[row]), float(cosines[row])) for row in np.flatnonzero(repeated >= 0)}
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


def unit_embeddings(program: Program, crops: np.ndarray, batches: Sequence[Sequence[int]]) -> Tensor:
    """Unit embeddings of crops (n, size, size, 3), (n, D); zeros for an embedding without a direction."""
    preprocess = program.model.preprocess
    units = unit(torch.cat([program.embed(preprocess(crops[batch])) for batch in batches]))
    return units.masked_fill(~units.isfinite().all(dim=1, keepdim=True), 0)


def _first_pass(
    program: Program,
    crops: np.ndarray,
    identities: Sequence[int],
    positions: Sequence[int],
    batches: Sequence[Sequence[int]],
    settings: MapSettings,
) -> ReferencePool | None:
    """Unit embeddings of all rows, where references cannot be had inside one batch; else None."""
    if settings.references == "mean" and np.bincount(identities).max() <= settings.batch_size:
        return None
    return ReferencePool(unit_embeddings(program, crops, batches), positions, np.asarray(identities))


def _references(
    batch: Sequence[int],
    identities: Sequence[int],
    positions: Sequence[int],
    pool: ReferencePool | None,
    packed: int,
    settings: MapSettings,
) -> tuple[Tensor | None, Tensor | None]:
    """References of a batch's rows, and which images they are.

    Args:
        batch: the rows.
        identities, positions: of all rows.
        pool: where references come from; None where they all lie in the batch.
        packed: identities of at most so many images lie in one batch.
        settings: see `MapSettings`.

    Returns:
        `mean`: (B, D), or None where the batch holds whole identities; and None.
        `each`, `mean-map`: (B, R, D) with NaN rows as padding; and positions (B, R), padded with -1.
    """
    people, places = [identities[row] for row in batch], [positions[row] for row in batch]
    if settings.references == "mean":
        if pool is None or len(pool.of(people[0])) <= packed:
            return None, None
        return pool.means(people[0], places), None
    assert pool is not None
    return pool.drawn(people, places, settings.max_references, settings.seed)


def _near_duplicates(
    embeddings: np.ndarray,
    identities: Sequence[int],
    positions: Sequence[int],
    whole: ReferencePool | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the images that rows nearly repeat, -1 where they repeat none; and the cosines."""
    numbered = np.asarray(positions, np.int64)
    if whole is None:
        first, cosines = near_duplicates(embeddings, identities)
    else:
        images = np.searchsorted(whole.positions, numbered)
        first, cosines = nearly_repeated(whole.units.cpu().numpy(), images)
        numbered = whole.positions
    return np.where(first < 0, -1, numbered[first]), cosines


def _each(group: str, maps: Tensor, batch: Sequence[int], drawn: Tensor) -> dict[str, Tensor]:
    """Maps (B, R, h, w) one by one, without padding and without references equal to their image."""
    found = ~maps[..., 0, 0].isnan()
    stored, scale = to_stored(maps[found])
    image_row = torch.tensor(batch)[:, None].expand(drawn.shape)
    return {
        f"{group}/map": stored,
        f"{group}/scale": scale,
        f"{group}/image_row": image_row[found.cpu()],
        f"{group}/reference_row": drawn[found.cpu()],
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
    counts = {"image_row": "row", "reference_row": "position"}.get(field, "")
    return Array(values.numpy(), (leading, *dims.get(field, ())), counts)


def _identity_maps(maps: np.ndarray, identities: Sequence[int], persons: int) -> np.ndarray:
    """Mean of the sum-normalised maps of each identity, (persons, h, w) float32; NaN where there is none."""
    means = np.full((persons, *maps.shape[1:]), np.nan, np.float32)
    values = maps.astype(np.float64)
    sums = values.sum(axis=(1, 2))
    for person in range(persons):
        rows = [row for row, i in enumerate(identities) if i == person and sums[row] > 0]
        if rows:
            means[person] = (values[rows] / sums[rows, None, None]).mean(axis=0)
    return means

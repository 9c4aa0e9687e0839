"""Scores of all methods on one planted model: rows of the benchmark's table."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from leamfast.analysis.bootstrap import mean_interval
from leamfast.faces.regions import region_index
from leamfast.leam.references import leave_one_out, unit
from leamfast.models.face_model import FaceModel
from leamfast_bench.truth.methods import Maps, Method, Query
from leamfast_bench.truth.planted import FACIAL_PARTS, PlantedSet
from leamfast_bench.truth.scores import PERCENTS, cosines, drops, localisation

__all__ = ["Score", "make_query", "score_maps", "too_small"]

RANKED_AT = 5.0  # percent at which facial parts are ranked


@dataclass(frozen=True)
class Score:
    """One method at one tap on one planted set.

    Attributes:
        method: which maps.
        map: tap, `fused ...`, or empty.
        kind: kind of the tap.
        cells: side of the map's grid.
        over: percent -> share of the support in the planted region over its share of the area.
        over_low, over_high: 95% interval of that at 5%, by a bootstrap over people.
        rank: place of the planted region among `FACIAL_PARTS` by over-representation at 5%, 1 the first.
        pointing: fraction of the maps whose largest pixel lies in the region.
        recall: fraction of the region inside the support as the support grows over `CURVE` percent.
        area: probability that a pixel of the region outranks one elsewhere.
        empty: fraction of the maps that are zero everywhere; their supports count as missing the region.
        drop, drop_low, drop_high: fall of the cosine with the top 1% black, and its interval.
        shifted, on_face: the same with the support moved round the picture, and over the face.
        n: images.
        unreported: why there are no scores, or empty.
    """

    method: str
    map: str
    kind: str
    cells: int
    over: dict[str, float] = field(default_factory=dict)
    over_low: float | None = None
    over_high: float | None = None
    rank: int | None = None
    pointing: float | None = None
    recall: tuple[float, ...] = ()
    area: float | None = None
    empty: float | None = None
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    shifted: float | None = None
    on_face: float | None = None
    n: int = 0
    unreported: str = ""


def make_query(model: FaceModel, planted: PlantedSet) -> Query:
    """Inputs and references of a planted set's pictures; all people have equally many."""
    images = model.preprocess(planted.images)
    units = unit(torch.cat([model.embed(images[i : i + 64]) for i in range(0, len(images), 64)]))
    people = torch.from_numpy(planted.people)
    mean = unit(leave_one_out(people).to(units) @ units)
    others = [np.flatnonzero(planted.people == p) for p in planted.people]
    each = torch.stack([units[torch.from_numpy(rows[rows != i])] for i, rows in enumerate(others)])
    return Query(model, images, mean, each)


def too_small(planted: PlantedSet, maps: Maps) -> str:
    """Why a grid cannot show the planted region, or nothing: its smallest part must cover a cell."""
    size = planted.labels.shape[-1]
    (_, dy), (_, dx) = maps.centres or ((0, size / maps.cells), (0, size / maps.cells))
    pixels = planted.areas[list(planted.classes)].min() * size * size
    if pixels >= dy * dx:
        return ""
    return f"{planted.region} is too small here: {pixels:.0f} pixels in a cell of {dy * dx:.0f}"


def score_maps(
    query: Query, planted: PlantedSet, methods: Iterable[Method], draws: int | None = None
) -> Iterator[Score]:
    """Scores of every map of every method.

    Args:
        query: the planted set as a model sees it.
        planted: pictures and truth.
        methods: see `methods` and `peers`.
        draws: of the moved supports, beside the drop; None leaves occlusion out.
    """
    device = query.images.device
    before = cosines(query.model, planted.images, query.mean)
    labels = torch.from_numpy(planted.labels).to(device)
    inside = torch.from_numpy(planted.inside).to(device)
    for method in methods:
        for maps in method(query):
            if reason := too_small(planted, maps):
                yield Score(maps.method, maps.map, maps.kind, maps.cells, unreported=reason)
            else:
                yield _score(query, planted, maps, labels, inside, before, draws)


def _score(
    query: Query,
    planted: PlantedSet,
    maps: Maps,
    labels: Tensor,
    inside: Tensor,
    before: np.ndarray,
    draws: int | None,
) -> Score:
    rows = maps.rows.numpy()
    maps = replace(maps, maps=maps.maps.to(labels.device))
    people = planted.people[rows]
    found = localisation(maps.maps, labels[maps.rows], inside[maps.rows], maps.centres)
    shares = found.shares.astype(np.float64)
    areas = planted.areas
    own = shares[:, :, list(planted.classes)].sum(axis=2) / areas[list(planted.classes)].sum()
    over, low, high, _ = mean_interval(own, people)
    at = PERCENTS.index(RANKED_AT)
    dropped = {}
    if draws is not None:
        fall = drops(
            query.model,
            planted.images[rows],
            query.mean[maps.rows],
            before[rows],
            maps.maps,
            maps.centres,
            rows=rows,
            faces=planted.faces[rows],
            draws=draws,
        )
        mean, drop_low, drop_high, _ = mean_interval(fall.own[:, None], people)
        dropped = {"drop": mean[0], "drop_low": drop_low[0], "drop_high": drop_high[0]}
        if draws:
            dropped |= {"shifted": fall.shifted.mean(), "on_face": fall.on_face.mean()}
    return Score(
        method=maps.method,
        map=maps.map,
        kind=maps.kind,
        cells=maps.cells,
        over={f"{percent:g}": float(value) for percent, value in zip(PERCENTS, over, strict=True)},
        over_low=float(low[at]),
        over_high=float(high[at]),
        rank=_rank(shares[:, at].mean(axis=0), areas, planted.region),
        pointing=float(found.hit.mean()),
        recall=tuple(float(value) for value in found.recall.mean(axis=0)),
        area=float(found.area.mean()),
        empty=float(found.empty.mean()),
        n=len(rows),
        **{name: float(value) for name, value in dropped.items()},
    )


def _rank(shares: np.ndarray, areas: np.ndarray, region: str) -> int:
    """Place of the region among all facial parts; behind those that it ties with."""
    classes = {part: [region_index(name) for name in names] for part, names in FACIAL_PARTS.items()}
    over = {part: shares[c].sum() / areas[c].sum() for part, c in classes.items() if areas[c].sum() > 0}
    return 1 + sum(bool(value >= over[region]) for part, value in over.items() if part != region)

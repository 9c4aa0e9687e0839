"""How well maps find a region that is known to carry the identity, and what occluding them does.

All scores are one number a picture; tables average them over pictures, with intervals over people.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leamfast.faces.regions import REGIONS
from leamfast.leam.registration import Centres
from leamfast.models.face_model import FaceModel
from leamfast_kernels import region_share, support, upsample

__all__ = ["CURVE", "PERCENTS", "Drops", "Localisation", "cosines", "drops", "localisation", "pixel_auc"]

PERCENTS = (1.0, 2.0, 5.0, 10.0)
CURVE = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0)
DROP_PERCENT = 1.0
BATCH = 64


@dataclass(frozen=True)
class Localisation:
    """Where N maps point.

    Attributes:
        shares: fraction of round(p / 100 * H * W) pixels that lie in the support and in each class,
            (N, percents, 19): pixels that a support lacks count as missing the region.
        empty: whether the map is zero everywhere, (N,).
        hit: whether the largest pixel lies in the planted region (pointing game, without a margin), (N,).
        recall: fraction of the planted region that the largest p percent of all pixels cover, (N, curve).
        area: probability that a pixel of the region outranks one outside it, ties one half, (N,).
    """

    shares: NDArray[np.float32]
    empty: NDArray[np.bool_]
    hit: NDArray[np.float64]
    recall: NDArray[np.float64]
    area: NDArray[np.float64]


@dataclass(frozen=True)
class Drops:
    """Fall of the cosine when the largest 1% of the pixels are black, and when as many elsewhere are.

    Attributes:
        own: with the map's own support, (N,).
        shifted: with the same support moved round the picture at random, mean over draws, (N,).
        on_face: with it moved so that its middle lies at random on the face, mean over draws, (N,).
    """

    own: NDArray[np.float64]
    shifted: NDArray[np.float64]
    on_face: NDArray[np.float64]


def localisation(maps: Tensor, labels: Tensor, inside: Tensor, centres: Centres | None) -> Localisation:
    """Scores of maps (N, h, w) against classes (N, H, W) and the planted region (N, H, W).

    Reference: pointing game, Zhang et al., Top-down neural attention by excitation backprop, 2018.
    """
    size = labels.shape[-1]
    shares, sizes = region_share(maps, labels, PERCENTS, size, centres, classes=len(REGIONS))
    full = torch.tensor([round(percent / 100 * size * size) for percent in PERCENTS], device=maps.device)
    shares = torch.where(sizes[..., None] > 0, shares * (sizes / full)[..., None], 0)
    pixels = upsample(maps, size, centres).flatten(1)
    flat = inside.flatten(1)
    top = pixels.argmax(dim=1, keepdim=True)
    hit = flat.gather(1, top)[:, 0] & (pixels.amax(dim=1) > 0)
    masks = support(maps, CURVE, size, centres).flatten(2)
    covered = (masks & flat[:, None]).sum(dim=2).double() / flat.sum(dim=1, keepdim=True).clamp_min(1)
    return Localisation(
        shares.cpu().numpy(),
        (sizes[:, -1] == 0).cpu().numpy(),
        hit.double().cpu().numpy(),
        covered.cpu().numpy(),
        pixel_auc(pixels, flat).cpu().numpy(),
    )


def pixel_auc(values: Tensor, inside: Tensor) -> Tensor:
    """Probability that a pixel inside has the larger value than one outside, ties one half.

    Args:
        values: (N, pixels).
        inside: bool, (N, pixels), with pixels of both kinds in each row.

    Returns:
        (N,), float64: the area under the curve of hits over false alarms as the support grows.
    """
    ordered, order = values.sort(dim=1)
    positive = inside.gather(1, order).double()
    negative = 1 - positive
    below = negative.cumsum(dim=1)
    # Pixels of one value are a run: those outside before it count in full, those within by half.
    place = torch.arange(values.shape[1], device=values.device).expand_as(order)
    new = torch.ones_like(inside)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(new, place, 0).cummax(dim=1).values
    ends = torch.ones_like(inside)
    ends[:, :-1] = new[:, 1:]
    last = torch.where(ends, place, place.shape[1]).flip(1).cummin(dim=1).values.flip(1)
    before = below.gather(1, first) - negative.gather(1, first)
    wins = (positive * (before + below.gather(1, last)) / 2).sum(dim=1)
    return wins / (positive.sum(dim=1) * negative.sum(dim=1))


def drops(
    model: FaceModel,
    images: NDArray[np.uint8],
    references: Tensor,
    before: NDArray[np.float64],
    maps: Tensor,
    centres: Centres | None,
    *,
    rows: NDArray[np.int64],
    faces: NDArray[np.bool_],
    draws: int,
) -> Drops:
    """Fall of the cosine with the reference when the support at 1% is black, and moved ones.

    Args:
        model: the model.
        images: (N, H, W, 3) uint8.
        references: unit references, (N, D).
        before: cosine of the images as they are, (N,).
        maps: (N, h, w).
        centres: where their cells lie.
        rows: number of each picture, which decides its moves: the same for every map of it, (N,).
        faces: where the face is, (N, H, W).
        draws: of each control; 0 leaves them out (NaN).
    """
    size = images.shape[1]
    masks = support(maps, [DROP_PERCENT], size, centres)[:, 0].cpu().numpy()

    def fall(moved: NDArray[np.bool_]) -> NDArray[np.float64]:
        return before - cosines(model, np.where(moved[..., None], 0, images).astype(np.uint8), references)

    controls = []
    for mover in (_anywhere, _onto_face):
        falls = []
        for draw in range(draws):
            each = zip(masks, faces, rows, strict=True)
            falls.append(fall(_moved(masks, [mover(mask, face, row, draw) for mask, face, row in each])))
        controls.append(np.mean(falls, axis=0) if falls else np.full(len(images), np.nan))
    return Drops(fall(masks), *controls)


Move = tuple[int, int]


def _moved(masks: NDArray[np.bool_], moves: Sequence[Move]) -> NDArray[np.bool_]:
    return np.stack([np.roll(mask, move, (0, 1)) for mask, move in zip(masks, moves, strict=True)])


def _anywhere(mask: NDArray[np.bool_], face: NDArray[np.bool_], row: int, draw: int) -> Move:
    """A move round the picture."""
    down, across = np.random.default_rng([0, row, draw]).integers(1, len(mask), 2)
    return int(down), int(across)


def _onto_face(mask: NDArray[np.bool_], face: NDArray[np.bool_], row: int, draw: int) -> Move:
    """A move of the support's middle to a pixel of the face."""
    if not mask.any():
        return 0, 0
    places = np.argwhere(face)
    goal = places[np.random.default_rng([1, row, draw]).integers(len(places))]
    down, across = goal - np.argwhere(mask).mean(axis=0).round().astype(int)
    return int(down), int(across)


def cosines(model: FaceModel, images: NDArray[np.uint8], references: Tensor) -> NDArray[np.float64]:
    """cos(f(x), r) of images (N, H, W, 3) and references (N, D), (N,)."""
    found = []
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        vectors = model.embed(model.preprocess(images[part]))
        found.append(torch.cosine_similarity(vectors, references[part]).double())
    return torch.cat(found).cpu().numpy()

"""The matrix as a user would write it: image by image, percent by percent, one occluded image at a time.

The loop is given what both sides need: crops, maps in the resolution of their layers, random orders and
moves, and references. All of that costs it nothing, and makes the pixels the same on both sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from leamfast.engine.occlude import OccludeFunction
from leamfast.engine.occlusion_maps import Entries, OcclusionMaps
from leamfast.engine.occlusion_supports import BLOCKS, CENTRE
from leamfast.leam.controls import centre_ranks, random_moves, random_ranks
from leamfast.models.face_model import FaceModel
from leamfast.store.occlusion import OWN
from leamfast_bench.occlusion.case import Case

__all__ = ["Given", "Loop", "given"]

DRAWN = ("random", "random-block-2", "random-block-4", "random-block-8", "shifted", "other-identity")
"""Controls with a value for each seed."""

Drops = dict[tuple[str, str], np.ndarray]


@dataclass(frozen=True, eq=False)
class Given:
    """What is known of n images before one is occluded.

    Attributes:
        crops: (n, S, S, 3), uint8.
        maps: source model -> name -> control -> maps of each draw, (draws, n, h, w) float32.
        ranks: control -> order of the pixels, (n, draws, S, S).
        moves: of supports, down and across, (n, seeds, 2).
        references: evaluated model -> of each image unit embeddings of others of the person, (R, D).
    """

    crops: np.ndarray
    maps: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
    ranks: Mapping[str, np.ndarray]
    moves: np.ndarray
    references: Mapping[str, list[np.ndarray]]


def given(case: Case, function: OccludeFunction, count: int) -> Given:
    """What the loop is given of the first images of a run."""
    s, results = case.settings, function.results
    size = results.input_size(s.sources[0])
    rows = np.arange(count)
    everyone = np.arange(len(results))
    entries = Entries.of_images(rows)
    maps: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for source in s.sources:
        maps[source] = {}
        for name in function.axes(source).maps:
            stored = OcclusionMaps(results, source, name, False, s.device, None, size)
            group = {OWN: [stored.own(entries)]}
            if "other-identity" in s.controls:
                group["other-identity"] = [stored.others(entries, seed) for seed in s.seeds]
            if "population" in s.controls:
                group["population"] = [stored.population(rows)]
            maps[source][name] = {
                control: torch.stack(found).float().cpu().numpy() for control, found in group.items()
            }
    ranks = {
        control: random_ranks(rows.tolist(), s.seeds, size, BLOCKS[control]).numpy()
        for control in s.controls
        if control in BLOCKS
    }
    ranks[CENTRE] = centre_ranks(size).expand(count, 1, size, size).numpy()
    moves = np.stack([random_moves(rows.tolist(), seed, size) for seed in s.seeds], axis=1)
    references = {}
    for model in s.evaluated:
        vectors = results.embedding(model.name).astype(np.float64)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        people = results.identities
        references[model.name] = [units[(people == people[row]) & (everyone != row)] for row in rows]
    return Given(function.recrop.crops(rows, [size]).images[size], maps, ranks, moves, references)


class Loop:
    """Drops of the first images of a run, by a model at a time and an image at a time.

    Args:
        about: what is known of the images.
        models: that embed, by name, in plain PyTorch.
        percents, controls: of the matrix; `seeds`: how many.
        pairs: whether each pair of an image and a reference is done by itself, from the start.

    Attributes:
        embedded: images that went through a model, since the loop was made.
    """

    def __init__(
        self,
        about: Given,
        models: Mapping[str, FaceModel],
        percents: tuple[float, ...],
        controls: tuple[str, ...],
        seeds: int,
        pairs: bool = False,
    ) -> None:
        self.pairs = pairs
        self.about, self.models = about, models
        self.percents, self.controls, self.seeds = percents, controls, seeds
        self.embedded = 0

    def __call__(self, count: int) -> Drops:
        """(evaluated, source) -> drops of so many images, (n, map, percent, control, 1, seed)."""
        found: Drops = {}
        for evaluated, model in self.models.items():
            for source, names in self.about.maps.items():
                shape = (count, len(names), len(self.percents), len(self.controls), 1, self.seeds)
                found[evaluated, source] = np.full(shape, np.nan, np.float32)
            for row in range(count):
                crop, references = self.about.crops[row], self.about.references[evaluated][row]
                before = self._cosine(model, crop, references)
                for source, names in self.about.maps.items():
                    drops = found[evaluated, source][row]
                    for k, name in enumerate(names):
                        for c, control in enumerate(self.controls):
                            for seed in range(self.seeds if control in DRAWN else 1):
                                for p, percent in enumerate(self.percents):
                                    mask = self._mask(source, name, control, row, seed, percent)
                                    occluded = crop.copy()
                                    occluded[mask] = 0
                                    after = self._cosine(model, occluded, references)
                                    drops[k, p, c, 0, seed] = before - after
                            if control not in DRAWN:
                                drops[k, :, c] = drops[k, :, c, :, :1]
        return found

    def _mask(self, source: str, name: str, control: str, row: int, seed: int, percent: float) -> np.ndarray:
        """Pixels that are filled, (S, S), bool."""
        size = len(self.about.crops[row])
        count = round(percent / 100 * size * size)
        if control in self.about.ranks:
            ranks: np.ndarray = self.about.ranks[control][row, seed]
            return ranks < count
        if control == "shifted":
            own = self._mask(source, name, OWN, row, 0, percent)
            return np.roll(own, self.about.moves[row, seed], axis=(0, 1))
        small = torch.from_numpy(self.about.maps[source][name][control][seed, row])
        values = F.interpolate(small[None, None], size=(size, size), mode="bilinear")[0, 0].numpy().ravel()
        order = np.argsort(-values, kind="stable")[:count]
        mask = np.zeros(size * size, bool)
        mask[order[values[order] > 0]] = True
        return mask.reshape(size, size)

    def _cosine(self, model: FaceModel, image: np.ndarray, references: np.ndarray) -> float:
        """Mean cosine of an image with its references."""
        if self.pairs and len(references) > 1:
            return float(np.mean([self._cosine(model, image, one[None]) for one in references]))
        self.embedded += 1
        found = model.embed(model.preprocess(image[None]))[0].double().cpu().numpy()
        return float((references @ (found / np.linalg.norm(found))).mean())

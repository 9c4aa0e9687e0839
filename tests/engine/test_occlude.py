"""Stored drops against the definition: image by image, percent by percent, in plain numpy."""

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from leamfast import load_model
from leamfast.datasets.decoding import decode_label, read_image
from leamfast.faces.alignment import resize_crop, resize_label
from leamfast.faces.pose import nearest_pose, points_of_labels, pose_vectors
from leamfast.faces.regions import region_index
from leamfast.leam.references import draw_references
from leamfast.models.face_model import FaceModel
from leamfast.store.occlusion import CONTROLS
from leamfast_kernels import upsample
from tests.engine.occluded_runs import IMAGES, occlude, some_faces, stored, tiny_run
from tests.engine.occlusion_networks import PREPROCESSING, spec

MODELS = ("one", "two")
SIZE = 32
RUNS = {
    "mean": {"references": "mean", "registration": "resize"},
    "mean, receptive": {"references": "mean", "registration": "receptive"},
    "each": {"references": "each", "registration": "resize", "max_references": 2},
    "mean-map": {"references": "mean-map", "registration": "receptive", "max_references": 2},
}
FACE = [*map(region_index, ("face", "rb", "lb", "re", "le", "nose", "imouth", "llip", "ulip", "eyeg"))]


@pytest.fixture(scope="module")
def data(faces, tmp_path_factory) -> Path:
    """Fourteen images of people with 4, 3, 2, 1 and 4 of them."""
    return some_faces(faces, tmp_path_factory.mktemp("data") / "faces", IMAGES)


@pytest.fixture(scope="module", params=RUNS)
def run(request, data, tmp_path_factory) -> "Naive":
    """A run of two models under one policy, occluded. Not to be changed."""
    out = tiny_run(data, tmp_path_factory.mktemp("run") / "out", MODELS, **RUNS[request.param])
    occlude(out, fills=("black", "noise"), sources=("one",))
    return Naive(data, out, **RUNS[request.param])


def one_way(scores: np.ndarray, percent: float) -> np.ndarray:
    """The largest positive pixels of scores (S, S), ties to the lower index."""
    flat = scores.ravel()
    count = round(percent / 100 * flat.size)
    chosen = [pixel for pixel in np.argsort(-flat, kind="stable") if flat[pixel] > 0][:count]
    mask = np.zeros(flat.size, bool)
    mask[chosen] = True
    return mask.reshape(scores.shape)


def share(scores: np.ndarray) -> np.ndarray:
    """A map that sums to 1; one of zeros stays so."""
    scores = scores.astype(np.float64)
    return scores / scores.sum() if scores.sum() > 0 else scores


@dataclass
class Naive:
    """The definitions once more, on what a run stored."""

    data: Path
    out: Path
    references: str
    registration: str
    max_references: int = 8
    embedded: dict[tuple[str, bytes], np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        paths = sorted(self.data.glob("id*/*.png"))
        self.people = np.array([int(path.parent.name[2:]) for path in paths])
        self.crops = [resize_crop(read_image(path).pixels, SIZE)[0] for path in paths]
        labels = [decode_label(self.data / ".labels" / path.relative_to(self.data)) for path in paths]
        self.labels = np.stack([resize_label(label, SIZE) for label in labels])
        self.nearest = nearest_pose(pose_vectors(points_of_labels(self.labels)), self.people)
        self.models: dict[str, FaceModel] = {
            name: load_model(spec(name), preprocessing=PREPROCESSING[name], trust_code=True)
            for name in MODELS
        }
        self.index = h5py.File(self.out / "index.h5")

    def unit(self, model: str, crop: np.ndarray) -> np.ndarray:
        key = model, crop.tobytes()
        if key not in self.embedded:
            found = self.models[model]
            vector = found.embed(found.preprocess(crop[None]))[0].numpy().astype(np.float64)
            self.embedded[key] = vector / np.linalg.norm(vector)
        return self.embedded[key]

    def others_of(self, row: int) -> np.ndarray:
        same = np.flatnonzero(self.people == self.people[row])
        return same[same != row]

    def references_of(self, row: int) -> list[int]:
        """Rows that an image is compared with; all images are usable, so that rows are positions."""
        if self.references == "mean":
            return self.others_of(row).tolist()
        own = np.flatnonzero(self.people == self.people[row])
        return draw_references(own, row, self.max_references, 0)

    def full(self, source: str, name: str, read) -> np.ndarray | None:
        """A map at the crop's resolution, (S, S) float32, of stored maps read by `read(layer)`."""
        maps = []
        for tap in ("conv1", "conv2") if name == "fused" else (name,):
            layer = self.index[f"model/{source}/layer/{tap}"]
            values = read(layer)
            if values is None:
                return None
            centres = None
            if self.registration == "receptive":
                axes = [layer[axis][...].astype(float) for axis in ("h", "w")]
                centres = tuple((a[0], a[1] - a[0]) for a in axes)
            maps.append(upsample(torch.from_numpy(values.astype(np.float32))[None], SIZE, centres)[0])
        if name != "fused":
            return maps[0].numpy()
        return torch.stack([m / m.sum() for m in maps]).mean(dim=0).numpy()

    def mean_of(self, source: str, name: str, groups: list[list]) -> np.ndarray | None:
        """Mean over groups of the mean over a group of sum-normalised maps, fused ones in pixels.

        Args:
            groups: of functions that read a map from a layer; none make none.
        """
        if not groups:
            return None
        if name == "fused":
            found = [
                np.mean([share(self.full(source, name, read)) for read in group], axis=0) for group in groups
            ]
            return np.mean(found, axis=0)

        def read(layer) -> np.ndarray:
            return np.mean(
                [np.mean([share(one(layer)) for one in group], axis=0) for group in groups], axis=0
            )

        return self.full(source, name, read)

    def row_map(self, row: int):
        def read(layer) -> np.ndarray | None:
            values = layer["map"][row].astype(np.float32)
            return None if np.isnan(values).any() else values

        return read

    def each_map(self, source: str, row: int, reference: int):
        first = self.index[f"model/{source}/layer/conv1/each"]
        place = np.flatnonzero((first["image_row"][...] == row) & (first["reference_row"][...] == reference))
        return lambda layer: layer["each/map"][place.item()].astype(np.float32)

    def usable(self) -> list[tuple[int, int]]:
        """(image, reference) of all maps, reference -1 where it has all of them."""
        rows = [row for row in range(len(self.people)) if len(self.others_of(row))]
        if self.references != "each":
            return [(row, -1) for row in rows]
        return [(row, reference) for row in rows for reference in sorted(self.references_of(row))]

    def single(self, source: str, entry: tuple[int, int]):
        row, reference = entry
        return self.row_map(row) if reference < 0 else self.each_map(source, row, reference)

    # -- the masks of each control

    def of_map(self, source, name, row, entry, control, seed) -> np.ndarray | None:
        """The map whose support a control takes, (S, S)."""
        others = self.others_of(row)
        if control in ("own", "shifted", "shifted-on-face"):
            return self.full(source, name, self.single(source, entry))
        if control == "other-identity":
            usable = self.usable()
            # Of maps of single references the place among all maps decides; all images but one have maps.
            draws = np.random.default_rng([300, seed, row if entry[1] < 0 else usable.index(entry)])
            while True:
                other = usable[draws.integers(len(usable))]
                if self.people[other[0]] != self.people[row]:
                    return self.full(source, name, self.single(source, other))
        if control == "population":
            strangers = [e[0] for e in self.usable() if self.people[e[0]] != self.people[row]]
            return self.mean_of(source, name, [[self.row_map(j)] for j in dict.fromkeys(strangers)])
        if control == "nearest-pose":
            near = self.nearest[row]
            if self.references != "each" or near < 0:
                return None if near < 0 else self.full(source, name, self.row_map(near))
            seen = [self.each_map(source, near, r) for r in self.references_of(near) if r != row]
            return self.mean_of(source, name, [seen]) if seen else None
        assert control.startswith("master")
        drawn = np.random.default_rng([301, 0, row]).permutation(others).tolist()
        groups = [[self.row_map(j)] for j in drawn]
        if self.references == "each":  # only maps that the row did not make
            seen = [[r for r in self.references_of(j) if r != row] for j in drawn]
            groups = [
                [self.each_map(source, j, r) for r in rs] for j, rs in zip(drawn, seen, strict=True) if rs
            ]
        if control == "master":
            return self.mean_of(source, name, groups)
        count = int(control.split("-")[1])
        return self.mean_of(source, name, groups[:count]) if count <= len(groups) else None

    def mask(self, source, name, row, entry, control, seed, percent) -> np.ndarray | None:
        count = round(percent / 100 * SIZE * SIZE)
        if control.startswith("random"):
            side = int(control.removeprefix("random-block-")) if "-" in control else 1
            across = SIZE // side
            mask = np.zeros((SIZE, SIZE), bool)
            for block in np.random.default_rng([side, seed, row]).permutation(across * across):
                y, x = divmod(int(block), across)
                for pixel in range(side * side):
                    if mask.sum() < count:
                        mask[y * side + pixel // side, x * side + pixel % side] = True
            return mask
        if control == "centre":
            y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
            order = sorted(
                range(SIZE * SIZE), key=lambda pixel: (y.flat[pixel] ** 2 + x.flat[pixel] ** 2, pixel)
            )
            mask = np.zeros(SIZE * SIZE, bool)
            mask[order[:count]] = True
            return mask.reshape(SIZE, SIZE)
        scores = self.of_map(source, name, row, entry, control, seed)
        if scores is None:
            return None
        mask = one_way(scores, percent)
        if control == "shifted":
            return np.roll(mask, np.random.default_rng([100, seed, row]).integers(1, SIZE, 2), (0, 1))
        if control == "shifted-on-face":
            face = np.argwhere(np.isin(self.labels[row], FACE))
            goal = face[np.random.default_rng([101, seed, row]).integers(len(face))]
            return np.roll(mask, goal - np.argwhere(mask).mean(axis=0).round().astype(int), (0, 1))
        return mask

    def filling(self, row: int, fill: str) -> np.ndarray:
        crop = self.crops[row]
        if fill == "black":
            return np.zeros_like(crop)
        return np.random.default_rng([200, 0, row]).integers(0, 256, crop.shape, np.uint8)

    def drop(self, evaluated, source, name, row, control, seed, percent, fill) -> float:
        crop, filling = self.crops[row], self.filling(row, fill)
        references = self.references_of(row)
        apart = self.references == "each"
        entries = [(row, reference) for reference in references] if apart else [(row, -1)]
        found = []
        for entry in entries:
            mask = self.mask(source, name, row, entry, control, seed, percent)
            if mask is None:
                return np.nan
            changed = np.where(mask[..., None], filling, crop)
            for reference in entry[1:] if apart else references:
                r = self.unit(evaluated, self.crops[reference])
                found.append(self.unit(evaluated, crop) @ r - self.unit(evaluated, changed) @ r)
        return float(np.mean(found)) if found else np.nan


ROWS = {"one": (1, 8, 9), "two": (12,)}
"""Of people with 4, 2, 1 and 4 images; on the model itself and on another one."""


@pytest.mark.parametrize("evaluated", MODELS)
def test_drops_are_those_of_the_definitions(run, evaluated):
    axes, arrays = stored(run.out, evaluated, "one")
    assert axes.maps == ("conv1", "conv2", "fused")
    assert axes.controls == CONTROLS
    assert (axes.percents, axes.fills, axes.seeds) == ((2, 20), ("black", "noise"), (0, 1))
    assert arrays.drop.shape == (14, 3, 2, 16, 2, 2)
    found, wanted = [], []
    for name, percent, control, (fill, seed) in product(
        axes.maps, axes.percents, axes.controls, (("black", 0), ("black", 1), ("noise", 0))
    ):
        place = (axes.maps.index(name), axes.percents.index(percent), axes.controls.index(control))
        place += (axes.fills.index(fill), seed)
        if fill == "black" or percent == 20:
            for row in ROWS[evaluated]:
                found.append(arrays.drop[row, *place])
                wanted.append(run.drop(evaluated, "one", name, row, control, seed, percent, fill))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    missing = np.isnan(arrays.drop[list(ROWS[evaluated])]).all(axis=(1, 2, 4, 5))
    # Of four images there is no master of 4 or 8, and of an image alone there is nothing. Glasses hide eyes.
    absent = {"master-4", "master-8"}
    absent |= {"nearest-pose"} if run.nearest[ROWS[evaluated][0]] < 0 else set()
    assert missing[0].tolist() == [control in absent for control in axes.controls]
    if evaluated == "one":
        assert missing[2].all()


def test_what_is_stored_beside_drops(run):
    axes, arrays = stored(run.out, "two", "one")
    for row in range(14):
        references = run.references_of(row)
        assert arrays.references[row] == len(references)
        units = [run.unit("two", run.crops[r]) for r in references]
        wanted = np.mean([run.unit("two", run.crops[row]) @ u for u in units]) if units else np.nan
        assert arrays.cosine[row] == pytest.approx(wanted, abs=1e-5, nan_ok=True)
    entries = [(1, r) for r in run.references_of(1)] if run.references == "each" else [(1, -1)]
    for m, name in enumerate(axes.maps):
        for p, percent in enumerate(axes.percents):
            masks = [run.mask("one", name, 1, entry, "own", 0, percent) for entry in entries]
            assert arrays.support_size[1, m, p] == np.mean([mask.sum() for mask in masks])
            for f, fill in enumerate(axes.fills):
                crop = run.crops[1].astype(float)
                changed = [np.where(mask[..., None], run.filling(1, fill), crop) for mask in masks]
                noise = [10 * np.log10(255**2 / ((crop - other) ** 2).mean()) for other in changed]
                assert arrays.psnr[1, m, p, f] == pytest.approx(np.mean(noise), rel=1e-5)
                assert -1 <= arrays.ssim[1, m, p, f] < 1
    assert np.isnan(arrays.psnr[9]).all()
    assert np.isnan(arrays.ssim[9]).all()
    assert np.isnan(arrays.support_size[9]).all()

"""A reader of planted drops, as `leamfast.store.results.Results` is of stored ones."""

import uuid
from dataclasses import replace

import h5py
import numpy as np

from leamfast.store.occlusion import OcclusionArrays, OcclusionAxes


def axes_of(maps=("a",), percents=(1.0,), controls=("own",), fills=("black",), seeds=(0,), steps=()):
    return OcclusionAxes(*map(tuple, (maps, percents, controls, fills, seeds, steps)))


def arrays_of(axes, drop, references=None, **others):
    """Arrays of rows whose drops are `drop`, which broadcasts to (n, map, percent, control, fill, seed)."""
    rows = len(drop)
    shape = (
        rows, len(axes.maps), len(axes.percents), len(axes.controls), len(axes.fills), len(axes.seeds)
    )  # fmt: skip
    drop = np.asarray(drop, np.float32)
    drop = np.broadcast_to(drop.reshape(*drop.shape, *[1] * (6 - drop.ndim)), shape).copy()
    references = np.ones(rows, np.int32) if references is None else np.asarray(references, np.int32)
    sizes = others.pop("support_size", np.ones(shape[:3], np.float32))
    cosine = np.ones(rows, np.float32)
    return OcclusionArrays(drop, references, cosine, np.asarray(sizes, np.float32), **others)


class Occluded:
    """Planted occlusion of one or more pairs of models.

    Args:
        identities: person number of each row.
        pairs: (evaluated, source) -> axes and arrays.
        image, identity: metadata columns.
        compared: (model, map) -> pair tables.
        size: side of the crops.
        policy: of the references of all models.
    """

    def __init__(
        self, identities, pairs, *, image=None, identity=None, compared=None, size=10, policy="mean"
    ):
        self.identities = np.asarray(identities)
        self.root = "planted"
        self._pairs, self._compared, self._size = pairs, compared or {}, size
        self._policy = policy
        self.reads = 0
        self.file = h5py.File(f"planted-{uuid.uuid4().hex}.h5", "w", driver="core", backing_store=False)
        people = int(self.identities.max()) + 1
        rows = [str(row) for row in range(len(self.identities))]
        images = {"path": rows, "sha1": rows, **(image or {})}
        persons = {"name": [f"person {number}" for number in range(people)], **(identity or {})}
        for of, columns in (("image", images), ("identity", persons)):
            for name, values in columns.items():
                self.file.create_dataset(f"{of}/{name}", data=list(values), dtype=h5py.string_dtype())
        self.file["image/position"] = np.arange(len(rows))
        self.file["image/identity"] = self.identities
        self.file["identity/images"] = np.bincount(self.identities)

    def __len__(self):
        return len(self.identities)

    @property
    def occluded(self):
        return tuple(self._pairs)

    @property
    def has_pairs(self):
        return bool(self._compared)

    def pairs(self, model, name):
        return self._compared.get((model, name), [])

    def text(self, name):
        return self.file[name].asstr()[...]

    def setting(self, model, name):
        return self._policy if name == "references" else ""

    def input_size(self, model):
        return self._size

    def occlusion_axes(self, evaluated, source):
        return self._pairs[evaluated, source][0]

    def occlusion(self, evaluated, source, rows):
        self.reads += 1
        arrays = self._pairs[evaluated, source][1]
        there = {name: values[rows] for name, values in vars(arrays).items() if values is not None}
        return replace(arrays, **there)


def planted(identities, axes, drop, references=None, *, model="m", **others):
    """One model occluded by its own maps; further arrays and what `Occluded` takes."""
    names = "image", "identity", "compared", "size", "policy"
    options = {name: others.pop(name) for name in names if name in others}
    pairs = {(model, model): (axes, arrays_of(axes, drop, references, **others))}
    return Occluded(identities, pairs, **options)

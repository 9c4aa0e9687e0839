"""The shard that closes a split identity: from the parts of its slices to the person.

It is made after the slices, by the process that drives the run, and is a pure function of their parts, which
are read a block of rows at a time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import PurePosixPath

import h5py
import numpy as np
import torch

from leamfast.engine.batch import BatchFunction
from leamfast.engine.local import LocalDriver
from leamfast.engine.plan import Shard
from leamfast.engine.reference_pairs import kept_reference_pairs
from leamfast.engine.run import Listener, RunReport, Sink, run
from leamfast.engine.slices import splits
from leamfast.store.arrays import KEPT, PRIVATE, Array, read_array
from leamfast.store.part import Part, datasets, group_attributes, open_part
from leamfast.store.run_folder import RunFolder

__all__ = ["ClosingFunction", "close_identities", "lost_slices"]

ROWS = 4096
"""Maps that are read at once."""


class ClosingFunction:
    """Closing shard -> its part: no row, and one person.

    Args:
        folder: of the run.
        plan: all shards.
        main: the function of the main pass. Its models are only loaded where slices left pairs of references
            to be compared: the process that drives a run may have no device for them.
    """

    def __init__(self, folder: RunFolder, plan: Sequence[Shard], main: BatchFunction) -> None:
        self.folder, self.plan, self.main = folder, plan, main

    def __call__(self, shard: Shard, ahead: Shard | None = None) -> Part:
        """Close one identity.

        Raises:
            PartError: the part of a slice cannot be read.
        """
        assert shard.split is not None
        slices = [self.folder.part(number) for number in shard.split.shards[:-1]]
        arrays: dict[str, Array] = {}
        with open_part(slices[0]) as first:
            groups = group_attributes(first)
            for name, dataset in datasets(first).items():
                dims = str(dataset.attrs["dims"]).split(",")
                if dims[0] not in PRIVATE:
                    scale = dims == [PurePosixPath(name).name]
                    arrays[name] = read_array(dataset) if scale else _emptied(dataset)
        maps = {name: array.values.shape[1:] for name, array in arrays.items() if "h" in array.dims[1:]}
        sums = _Sums({name: shape for name, shape in maps.items() if arrays[name].dims[0] == "person"})
        kept: dict[str, list[dict[str, np.ndarray]]] = {m.name: [] for m in self.main.settings.models}
        rows = 0
        for path in slices:
            with open_part(path) as file:
                rows += int(file.attrs["rows"])
                sums.add(file)
                for name in kept:
                    if own := _kept(file, f"model/{name}/"):
                        kept[name].append(own)
        arrays |= self._person(shard, rows) | sums.means()
        for name, of_slices in kept.items():
            if of_slices:
                program, seed = self._main.programs[name], self.main.settings.maps.seed
                pairs = kept_reference_pairs(program, of_slices, seed)
                arrays |= {f"model/{name}/{path}": array for path, array in pairs.items()}
        return Part(shard.number, arrays, groups)

    @cached_property
    def _main(self) -> BatchFunction:
        """Who has the models: on the processor where this process does not see the device of the run."""
        settings = self.main.settings
        if torch.device(settings.device).type == "cpu" or torch.cuda.is_available():
            return self.main
        models = tuple(replace(model, backend="eager") for model in settings.models)
        return BatchFunction(replace(settings, device="cpu", precision="fp32", models=models))

    def _person(self, shard: Shard, images: int) -> dict[str, Array]:
        assert shard.split is not None
        entry = self.plan[shard.split.start].identities[0].entries[0]
        columns = self.main.settings.person_columns
        texts = {"name": entry.identity, **{column: entry.metadata[column] for column in columns}}
        found = {f"identity/{k}": Array(np.array([v], dtype=object), ("person",)) for k, v in texts.items()}
        return {**found, "identity/images": Array(np.array([images], np.int64), ("person",))}


class _Sums:
    """Sums of the sum-normalised stored maps of all rows that have mass, as `engine.maps` means them.

    Args:
        shapes: path of every `identity_map` -> cells of its maps.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.sums = {name: np.zeros(shape) for name, shape in shapes.items()}
        self.counts = dict.fromkeys(shapes, 0)

    def add(self, file: h5py.File) -> None:
        """Take in the maps of one part."""
        for name in self.sums:
            maps = file[str(PurePosixPath(name).parent / "map")]
            for start in range(0, len(maps), ROWS):
                values = maps[start : start + ROWS].astype(np.float64)
                masses = values.sum(axis=(1, 2))
                found = masses > 0
                self.sums[name] += (values[found] / masses[found, None, None]).sum(axis=0)
                self.counts[name] += int(found.sum())

    def means(self) -> dict[str, Array]:
        """`identity_map` of the one person, (1, h, w) float32; NaN where no map has mass."""
        means = {
            name: total / self.counts[name] if self.counts[name] else np.full_like(total, np.nan)
            for name, total in self.sums.items()
        }
        return {n: Array(m[None].astype(np.float32), ("person", "h", "w")) for n, m in means.items()}


def close_identities(
    plan: Sequence[Shard],
    there: Collection[int],
    function: ClosingFunction,
    sink: Sink[Part],
    listener: Listener,
) -> RunReport:
    """Make the parts that are missing of identities whose slices are all there.

    Args:
        plan: all shards.
        there: numbers of the finished ones.
        function: makes them.
        sink: keeps them.
        listener: hears what becomes of them.
    """
    missing = [
        shard
        for shard in plan
        if shard.split is not None
        and shard.closes
        and shard.number not in there
        and set(shard.split.shards[:-1]) <= set(there)
    ]
    return run(missing, function, sink, driver=LocalDriver(0), listener=listener)


def lost_slices(
    plan: Sequence[Shard], there: Collection[int], failed: Mapping[int, str]
) -> dict[int, str | None]:
    """Finished slices that no index can hold, as their identity is not whole.

    Args:
        plan: all shards.
        there: numbers of the finished ones.
        failed: number of a shard that could not be computed -> why.

    Returns:
        Number -> why, or None where nothing failed and the run only has to go on.
    """
    lost: dict[int, str | None] = {}
    for split in splits(plan):
        if not set(split.shards) <= set(there):
            reasons = [f"shard {n} of its identity: {failed[n]}" for n in split.shards if n in failed]
            lost |= {n: reasons[0] if reasons else None for n in split.shards if n in there}
    return lost


def _emptied(dataset: h5py.Dataset) -> Array:
    text = h5py.check_string_dtype(dataset.dtype) is not None
    values = np.empty((0, *dataset.shape[1:]), object if text else dataset.dtype)
    return Array(values, tuple(dataset.attrs["dims"].split(",")), str(dataset.attrs.get("counts", "")))


def _kept(file: h5py.File, group: str) -> dict[str, np.ndarray]:
    """What a slice kept for one model, by path below the model's group."""
    return {
        name.removeprefix(group): dataset[...]
        for name, dataset in datasets(file).items()
        if name.startswith(group) and dataset.attrs["dims"].split(",")[0] == KEPT
    }

"""Is a result folder whole? Every problem is named, none is mended."""

import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from leamfast.faces.regions import REGIONS
from leamfast.store.arrays import read_array
from leamfast.store.index import build_index
from leamfast.store.part import DAMAGE, Part, PartError, datasets, group_attributes, open_part, read_part
from leamfast.store.run_folder import RunFolder
from leamfast.store.seal import broken
from leamfast.store.settings import read_frozen, settings_sha256
from leamfast.store.verify_occlusion import occlusion_problems
from leamfast.store.verify_pairs import pair_problems

__all__ = ["verify"]


def verify(root: Path) -> list[str]:
    """Check a finished run: parts, their digests, settings and values, passes, and what is made of them.

    Args:
        root: the result folder.

    Returns:
        One sentence a problem; empty where all is well.

    Raises:
        RequestError: there is no readable run.toml.
    """
    folder = RunFolder(root)
    frozen = read_frozen(folder.settings)
    shards, run = int(frozen["shards"]["count"]), settings_sha256(frozen)
    problems = [f"{path.relative_to(root)} is left over from a killed run" for path in root.rglob(".*.tmp")]
    whole, rows, models = [], 0, set()
    for shard in range(shards):
        path = folder.part(shard)
        try:
            part = read_part(path)
        except PartError as exc:
            problems.append(str(exc))
            continue
        whole.append(path)
        rows += part.rows
        models |= {name.split("/")[1] for name in part.arrays if name.startswith("model/")}
        if part.shard != shard:
            problems.append(f"{path.name} holds shard {part.shard}")
        if part.run != run:
            problems.append(f"{path.name} was made by a run with other settings")
        problems += [f"{path.name}: {problem}" for problem in _values(part)]
    for path in sorted(folder.shards.glob("part-*.h5")):
        if path not in {folder.part(shard) for shard in range(shards)}:
            problems.append(f"{path.name} belongs to no shard of this run")
    if len(whole) < shards:
        problems.append(f"{len(whole)} of {shards} shards are whole: go on with --resume")
    else:
        digests = [_digest(path) for path in whole]
        problems += pair_problems(folder, digests)
        problems += occlusion_problems(folder, digests, rows, models)
        problems += _derived(folder, whole)
    return problems


def _digest(path: Path) -> str:
    with open_part(path) as file:
        return str(file.attrs["digest"])


def _derived(folder: RunFolder, parts: list[Path]) -> Iterator[str]:
    """`failures.csv` and `index.h5` are pure functions of other files: made again, they are the same."""
    try:
        _, failures, index = build_index(folder.root, parts, len(parts), REGIONS)
    except PartError as exc:
        yield str(exc)
        return
    for path in (folder.failures, folder.index):
        if not path.is_file():
            yield f"{path.name} is missing: go on with --resume"
    if folder.failures.is_file() and folder.failures.read_bytes() != failures:
        yield "failures.csv is not what the parts make: go on with --resume"
    # Damage is looked for before HDF5 reads it, which may end the process.
    if folder.index.is_file() and (
        broken(folder.index) or _content(folder.index.read_bytes()) != _content(index)
    ):
        passes = {"compare": folder.compare_settings, "occlude": folder.occlude_settings}
        made = [f"`leamfast {name}`" for name, settings in passes.items() if settings.exists()]
        again = f", or run {' or '.join(made)} again" if made else ""
        yield f"index.h5 is not what the parts make: go on with --resume{again}"


def _content(index: bytes) -> dict[str, object] | None:
    """What an index says, without the padding of its bytes, which HDF5 leaves as it finds it.

    Returns:
        Path -> values, or sources, and attributes; None where it cannot be read.
    """
    try:
        with h5py.File(io.BytesIO(index), "r") as file:
            found: dict[str, object] = {"/": sorted((k, str(v)) for k, v in file.attrs.items())}
            for name, dataset in datasets(file).items():
                if dataset.is_virtual:
                    sources = [
                        (s.file_name, s.dset_name, s.vspace.get_select_bounds())
                        for s in dataset.virtual_sources()
                    ]
                    found[name] = (dataset.shape, str(dataset.dtype), sources)
                else:
                    values = read_array(dataset).values
                    found[name] = (values.shape, str(values.dtype), values.tolist())
            for group, attributes in group_attributes(file).items():
                found[f"{group}/"] = sorted((k, str(v)) for k, v in attributes.items())
            return found
    except DAMAGE:
        return None


def _values(part: Part) -> Iterator[str]:
    """What cannot be in a part: arrays of another length than its rows, or impossible values."""
    lengths = {"row": part.rows, "person": part.persons}
    for name, array in part.arrays.items():
        values, leading = array.values, array.dims[0]
        if leading in lengths and len(values) != lengths[leading]:
            yield f"{name} has {len(values)} {leading}s where there are {lengths[leading]}"
        if not name.startswith(("model/", "crop/")) or array.is_text:
            continue
        kind = PurePosixPath(name).name
        if kind in ("embedding", "transform") and not np.isfinite(values).all():
            yield f"{name} holds values that are not finite"
        if kind in ("map", "scale") and np.isinf(values).any():
            yield f"{name} holds infinite values"
        if kind == "map":
            yield from _map(name, values, part.arrays[f"{PurePosixPath(name).parent}/scale"].values)


def _map(name: str, maps: np.ndarray, scales: np.ndarray) -> Iterator[str]:
    if len(maps) == 0:
        return
    absent = np.isnan(maps).reshape(len(maps), -1)
    if (absent.any(axis=1) != absent.all(axis=1)).any():
        yield f"{name} holds a map that is NaN in part"
    if (absent.any(axis=1) != np.isnan(scales)).any():
        yield f"{name} and its scale disagree on which maps are missing"
    found = maps[~absent.any(axis=1)]
    if found.size and (
        found.min() < 0 or not np.isin(found.reshape(len(found), -1).max(axis=1), (0, 1)).all()
    ):
        yield f"{name} holds a map whose values do not run from 0 to a maximum of 1"

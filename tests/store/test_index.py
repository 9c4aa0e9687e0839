import csv
from dataclasses import replace

import h5py
import numpy as np
import pytest
import xarray

from leamfast.faces.regions import REGIONS
from leamfast.store.arrays import Array
from leamfast.store.index import write_index
from leamfast.store.part import PartError, datasets, write_part
from leamfast.store.verify import _content
from tests.store.conftest import make_part


@pytest.fixture
def parts(tmp_path):
    (tmp_path / "shards").mkdir()
    made = [make_part(0, 3, 2), make_part(1, 0, 1), make_part(2, 4, 2)]
    paths = [tmp_path / "shards" / f"part-{part.shard:05d}.h5" for part in made]
    for path, part in zip(paths, made, strict=True):
        write_part(path, part)
    return made, paths


def test_arrays_are_joined_in_order(tmp_path, parts):
    made, paths = parts
    summary = write_index(tmp_path, paths, 3, REGIONS)
    assert (summary.rows, summary.persons, summary.parts, summary.complete) == (7, 5, 3, True)
    with h5py.File(tmp_path / "index.h5") as index:
        for name in (
            "image/path",
            "model/m/embedding",
            "model/m/layer/a.b/map",
            "model/m/layer/a.b/each/map",
        ):
            dataset = index[name]
            found = dataset.asstr()[...] if dataset.dtype == object else dataset[...]
            np.testing.assert_array_equal(found, np.concatenate([p.arrays[name].values for p in made]))
        assert index["model/m/embedding"].is_virtual
        assert not index["image/path"].is_virtual
        assert index["image/identity"][...].tolist() == [0, 1, 0, 3, 4, 3, 4]
        assert index["model/m/layer/a.b/each/image_row"][...].tolist() == [0, 3]
        assert index["model/m"].attrs["target"] == "loss"
        assert index["region"].asstr()[...].tolist() == list(REGIONS)
        assert "failure" not in index


def test_positions_name_rows_of_any_part(tmp_path):
    """Two slices, the second of which names a row of the first, and the part with the person."""
    (tmp_path / "shards").mkdir()
    paths = []
    for number, (positions, names) in enumerate([([3, 4, 9], [-1, 9, 3]), ([12, 20], [4, 12]), ([], [])]):
        part = make_part(number, len(positions), 1 if number == 2 else 0)
        own = {
            "image/identity": Array(np.zeros(len(positions), np.int64), ("row",), "person"),
            "image/position": Array(np.array(positions, np.int64), ("row",)),
            "model/m/duplicate_of": Array(np.array(names, np.int64), ("row",), "position"),
            "model/m/kept/maps": Array(np.zeros((number, 2)), ("kept", "h")),  # not joined, nor alike
        }
        paths.append(tmp_path / "shards" / f"part-{number:05d}.h5")
        write_part(paths[-1], replace(part, arrays={**part.arrays, **own}))
    write_index(tmp_path, paths, 3, REGIONS)
    with h5py.File(tmp_path / "index.h5") as index:
        assert index["model/m/duplicate_of"][...].tolist() == [-1, 2, 0, 1, 3]
        assert index["image/identity"][...].tolist() == [0] * 5
        assert len(index["identity/name"]) == 1
        assert "kept" not in index["model/m"]
    with pytest.raises(PartError, match="duplicate_of names the image at position 4, which no part holds"):
        write_index(tmp_path, paths[1:], 3, REGIONS)


def test_failures_are_listed_with_those_of_failed_shards(tmp_path, parts):
    _, paths = parts
    write_index(tmp_path, paths, 4, REGIONS, [("lost.png", "y", "compute", 'killed, "twice"')])
    with (tmp_path / "failures.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "identity", "stage", "reason"]
    assert rows[1] == ["bad0.png", "x", "decode", "file is empty, alas"]
    assert rows[-1] == ["lost.png", "y", "compute", 'killed, "twice"']
    with h5py.File(tmp_path / "index.h5") as index:
        assert not index.attrs["complete"]


def test_the_index_is_a_pure_function_of_the_parts(tmp_path, parts):
    _, paths = parts
    write_index(tmp_path, paths, 3, REGIONS)
    first = (tmp_path / "index.h5").read_bytes()
    write_index(tmp_path, paths, 3, REGIONS)
    again = (tmp_path / "index.h5").read_bytes()
    assert _content(again) == _content(first) is not None
    assert _content(first[:-100]) is None


def test_xarray_reads_every_array_as_h5py_does(tmp_path, parts):
    write_index(tmp_path, parts[1], 3, REGIONS)
    assert_xarray_agrees(tmp_path / "index.h5")


def test_xarray_reads_every_array_of_a_real_run(finished_run):
    assert assert_xarray_agrees(finished_run / "index.h5") > 40


def assert_xarray_agrees(path) -> int:
    with xarray.open_datatree(path, engine="h5netcdf") as tree, h5py.File(path) as file:
        found = datasets(file)
        for name, dataset in found.items():
            group, _, leaf = name.rpartition("/")
            values = (tree[group] if group else tree)[leaf].values
            wanted = dataset.asstr()[...] if dataset.dtype == object else dataset[...]
            np.testing.assert_array_equal(values, wanted, err_msg=name)
    return len(found)


def test_the_folder_can_be_moved(tmp_path, parts):
    write_index(tmp_path, parts[1], 3, REGIONS)
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)
    with h5py.File(moved / "index.h5") as index:
        assert np.isfinite(index["model/m/embedding"][...]).all()
    moved.rename(tmp_path)


def test_no_parts_make_an_empty_index(tmp_path):
    summary = write_index(tmp_path, [], 2, REGIONS)
    assert (summary.rows, summary.complete) == (0, False)
    with xarray.open_datatree(tmp_path / "index.h5", engine="h5netcdf") as tree:
        assert tree.sizes["row"] == 0


def test_more_parts_than_files_may_be_open(tmp_path):
    import resource

    (tmp_path / "shards").mkdir()
    paths = [tmp_path / "shards" / f"part-{shard:05d}.h5" for shard in range(90)]
    for shard, path in enumerate(paths):
        write_part(path, make_part(shard, 1, 1))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        assert write_index(tmp_path, paths, 90, REGIONS).rows == 90
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_parts_that_do_not_go_together_are_refused(tmp_path):
    (tmp_path / "shards").mkdir()
    first, second = make_part(0), make_part(1)
    del second.arrays["model/m/layer/a.b/scale"]
    for part in (first, second):
        write_part(tmp_path / "shards" / f"{part.shard}.h5", part)
    with pytest.raises(PartError, match="differ in the array model/m/layer/a.b/scale"):
        write_index(tmp_path, sorted((tmp_path / "shards").iterdir()), 2, REGIONS)


def test_pictures_of_several_people_are_counted_part_by_part(tmp_path):
    (tmp_path / "shards").mkdir()
    names = ["a.png", "b.png@0,0,9,9", "b.png@9,0,18,9", "c.png"], ["d.png", "e.png@0,0,9,9", "f.png@x,1"]
    files = ["1", "2", "2", "3"], ["1", "2", "3"]
    people = [0, 0, 1, 1], [0, 0, 1]
    paths = []
    for shard in range(2):
        made = make_part(shard, len(names[shard]), 2)
        made.arrays["image/path"].values[:] = names[shard]
        made.arrays["image/sha1"].values[:] = files[shard]
        made.arrays["image/identity"].values[:] = people[shard]
        paths.append(tmp_path / "shards" / f"part-{shard:05d}.h5")
        write_part(paths[-1], made)
    # a and d; the left parts of b and e; c and f.
    assert write_index(tmp_path, paths, 2, REGIONS).shared == 3
    assert write_index(tmp_path, paths[:1], 2, REGIONS).shared == 0

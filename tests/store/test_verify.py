import shutil

import h5py
import numpy as np
import pytest

from leamfast import RequestError
from leamfast.store.verify import verify


@pytest.fixture
def run(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_is_whole(run):
    assert verify(run) == []


def part(run, shard):
    return run / "shards" / f"part-{shard:05d}.h5"


def test_a_missing_part(run):
    part(run, 1).unlink()
    problems = verify(run)
    assert "part-00001.h5 is missing" in problems
    assert "3 of 4 shards are whole: go on with --resume" in problems


def test_a_truncated_part(run):
    part(run, 2).write_bytes(part(run, 2).read_bytes()[:-100])
    assert any("part-00002.h5 is not readable" in p for p in verify(run))


def test_a_flipped_bit(run):
    content = bytearray(part(run, 0).read_bytes())
    with h5py.File(part(run, 0)) as file:
        embedding = file["model/demo/embedding"][...].tobytes()
    at = bytes(content).index(embedding[:64])
    content[at] ^= 1
    part(run, 0).write_bytes(content)
    assert any("part-00000.h5 holds other values" in p for p in verify(run))


def test_a_part_that_was_made_again_differently(run):
    from leamfast.store.arrays import Array
    from leamfast.store.part import read_part, write_part

    changed = read_part(part(run, 0))
    embedding = changed.arrays["model/demo/embedding"]
    changed.arrays["model/demo/embedding"] = Array(embedding.values * 2, embedding.dims)
    write_part(part(run, 0), changed)
    assert verify(run) == ["index.h5 is not what the parts make: go on with --resume"]


def test_values_and_attributes_that_were_changed_in_the_index_or_a_part(run):
    with h5py.File(run / "index.h5", "r+") as index:
        index["image/identity"][0] = 7
    assert verify(run) == ["index.h5 is not what the parts make: go on with --resume"]
    with h5py.File(part(run, 1), "r+") as file:
        file["model/demo"].attrs["target"] = "similarity"
    assert any("part-00001.h5 holds other values" in p for p in verify(run))


def test_failures_that_no_part_lists(run):
    (run / "failures.csv").write_text("path,identity,stage,reason\nmore,x,y,z\n")
    assert verify(run) == ["failures.csv is not what the parts make: go on with --resume"]


def test_a_part_of_another_shard_or_run(run):
    from dataclasses import replace

    from leamfast.store.part import read_part, write_part

    shutil.copy(part(run, 0), part(run, 1))
    assert "part-00001.h5 holds shard 0" in verify(run)
    write_part(part(run, 1), replace(read_part(part(run, 1)), shard=1, run="other"))
    assert "part-00001.h5 was made by a run with other settings" in verify(run)


@pytest.mark.parametrize("name", ["shards/part-00000.h5", "index.h5"])
def test_damage_anywhere_is_a_problem_and_not_an_error(run, name):
    path, rng = run / name, np.random.default_rng(0)
    content = path.read_bytes()
    for _ in range(25):
        damaged = bytearray(content)
        for at in rng.integers(0, min(len(content), 40_000), 20):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        assert verify(run)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model/demo/embedding", np.nan, "values that are not finite"),
        ("model/demo/layer/conv1/map", np.inf, "infinite"),
        ("model/demo/layer/conv1/map", np.nan, "NaN in part"),
        ("model/demo/layer/conv1/map", 2.0, "maximum of 1"),
        ("model/demo/layer/conv1/scale", np.nan, "disagree"),
    ],
)
def test_values_that_cannot_be(run, name, value, words):
    from leamfast.store.arrays import Array
    from leamfast.store.part import read_part, write_part

    changed = read_part(part(run, 0))
    values = changed.arrays[name].values.copy()
    values.flat[0] = value
    changed.arrays[name] = Array(values, changed.arrays[name].dims)
    write_part(part(run, 0), changed)
    assert any(words in p and name.rpartition("/")[0] in p for p in verify(run))


def test_an_index_that_is_missing_broken_or_too_small(run):
    (run / "index.h5").write_bytes(b"nothing")
    assert verify(run) == ["index.h5 is not what the parts make: go on with --resume"]
    (run / "index.h5").unlink()
    assert verify(run) == ["index.h5 is missing: go on with --resume"]


def test_leftovers_and_strangers(run):
    (run / "shards" / ".part-00009.h5.1-aa.tmp").touch()
    shutil.copy(part(run, 0), part(run, 77))
    (run / "failures.csv").unlink()
    problems = verify(run)
    assert any("left over" in p for p in problems)
    assert "part-00077.h5 belongs to no shard of this run" in problems
    assert "failures.csv is missing: go on with --resume" in problems


def test_no_run_at_all(tmp_path):
    with pytest.raises(RequestError, match=r"run.toml cannot be read"):
        verify(tmp_path)

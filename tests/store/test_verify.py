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
    assert any("needs shards/part-00001.h5, which is missing" in p for p in problems)


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
    assert verify(run) == ["index.h5: was made from another shards/part-00000.h5"]


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
    assert any("index.h5: is not readable" in p for p in verify(run))
    (run / "index.h5").unlink()
    assert "index.h5: is missing" in verify(run)


def test_leftovers_and_strangers(run):
    (run / "shards" / ".part-00009.h5.1-aa.tmp").touch()
    shutil.copy(part(run, 0), part(run, 77))
    (run / "failures.csv").unlink()
    problems = verify(run)
    assert any("left over" in p for p in problems)
    assert "part-00077.h5 belongs to no shard of this run" in problems
    assert "failures.csv is missing" in problems


def test_no_run_at_all(tmp_path):
    with pytest.raises(RequestError, match=r"run.toml cannot be read"):
        verify(tmp_path)

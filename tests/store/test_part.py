import errno
import os
from dataclasses import replace

import h5py
import numpy as np
import pytest

from leamfast.store.atomic import StorageError, StorageFullError, sweep, write_atomically
from leamfast.store.part import PartError, open_part, read_part, write_part


def test_a_part_comes_back_as_it_was_written(tmp_path, part):
    write_part(tmp_path / "p.h5", part)
    back = read_part(tmp_path / "p.h5")
    assert back.shard == part.shard
    assert back.failures == part.failures
    assert set(back.arrays) == set(part.arrays)
    for name, array in part.arrays.items():
        assert back.arrays[name].dims == array.dims
        assert back.arrays[name].counts == array.counts
        assert back.arrays[name].values.dtype == array.values.dtype
        np.testing.assert_array_equal(back.arrays[name].values, array.values)
    assert back.groups["model/m"] == {"target": "loss", "taps": "a.b"}
    assert os.listdir(tmp_path) == ["p.h5"]


def test_the_same_part_has_the_same_digest_and_another_has_another(tmp_path, part):
    digests = []
    for name, made in (
        ("a", part),
        ("b", part),
        ("c", replace(part, run="x")),
        ("d", replace(part, failures=())),
    ):
        write_part(tmp_path / name, made)
        with open_part(tmp_path / name) as file:
            digests.append(file.attrs["digest"])
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("at", [0.1, 0.5, 0.999])
def test_a_truncated_part_is_named(tmp_path, part, at):
    path = tmp_path / "p.h5"
    write_part(path, part)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * at)])
    with pytest.raises(PartError, match=r"p\.h5 (is not readable|holds other values)"):
        read_part(path)


def test_a_changed_value_is_noticed(tmp_path, part):
    path = tmp_path / "p.h5"
    write_part(path, part)
    with h5py.File(path, "r+") as file:
        file["model/m/embedding"][1, 1] += 1e-6
    with pytest.raises(PartError, match="digest differs"):
        read_part(path)


def test_incomplete_foreign_and_missing_parts(tmp_path, part):
    path = tmp_path / "p.h5"
    with pytest.raises(PartError, match="is missing"):
        read_part(path)
    write_part(path, part)
    with h5py.File(path, "r+") as file:
        file.attrs["complete"] = False
    with pytest.raises(PartError, match="never completed"), open_part(path):
        pass
    with h5py.File(path, "w") as file:
        file.attrs["schema"] = "other/9"
    with pytest.raises(PartError, match="schema 'other/9'"), open_part(path):
        pass


NO_ROOM = r"no room for p.h5 \([0-9,]+ bytes\): free some and run the same command again \(batch .*--resume"


def test_a_full_disk_leaves_nothing_behind(tmp_path, part, monkeypatch):
    write_atomically(tmp_path / "old", b"kept")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError, match=NO_ROOM):
        write_part(tmp_path / "p.h5", part)
    with pytest.raises(StorageFullError):
        write_atomically(tmp_path / "old", b"new")
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"kept"


def test_a_folder_that_refuses(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "fsync", refuse)
    words = r"refuses old \(Permission denied\): make it writable and run the same command again \(batch "
    with pytest.raises(StorageError, match=words):
        write_atomically(tmp_path / "old", b"new")
    assert os.listdir(tmp_path) == []


def test_sweep_removes_only_leftovers(tmp_path):
    for name in (".part-00001.h5.12-0123abcd.tmp", ".mine.tmp", ".lock", "notes.tmp"):
        (tmp_path / name).touch()
    assert sweep(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == [".lock", ".mine.tmp", "notes.tmp"]


def test_bytes_of_which_hdf5_dies_do_not_reach_it(tmp_path, part):
    """Eight more in the size of a string's type, beside an attribute's name, end a process that reads it."""
    write_part(tmp_path / "p.h5", part)
    content = bytearray((tmp_path / "p.h5").read_bytes())
    for start in range(len(content)):
        if content.startswith(b"dims\0\0\0\0", start):
            content[start + 8 : start + 40] = bytes(byte ^ 8 for byte in content[start + 8 : start + 40])
    (tmp_path / "p.h5").write_bytes(content)
    with pytest.raises(PartError, match="other values"):
        read_part(tmp_path / "p.h5")

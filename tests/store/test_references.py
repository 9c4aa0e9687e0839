"""Embeddings of a split identity: read as written, joined as of one, and refused where they are others."""

from dataclasses import replace

import numpy as np
import pytest

from leamfast.store.part import PartError
from leamfast.store.references import (
    ReferenceFiles,
    ReferencePart,
    join_references,
    read_references,
    write_references,
)
from leamfast.store.run_folder import RunFolder


def text(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


def parts() -> list[ReferencePart]:
    """Two slices: position 8 has no face, 12 repeats it, 14 repeats 7 and 13 an image of its own slice."""
    units = np.eye(6, dtype=np.float32)
    first = ReferencePart(
        3, np.array([7, 8]), text("f7", "f8"), text("ä.png", "8.png"), np.array([7]), {"m": units[:1]}
    )
    second = ReferencePart(
        4,
        np.array([11, 12, 13, 14, 15]),
        text("f11", "f8", "f11", "f7", "f15"),
        text("11", "12", "13", "14", "15"),
        np.array([11, 12, 14, 15]),
        {"m": units[1:5]},
    )
    return [replace(part, run="ab") for part in (first, second)]


def test_joined_by_hand():
    joined = join_references(parts())
    assert joined.positions.tolist() == [7, 11, 15]
    assert joined.names.tolist() == ["ä.png", "11", "15"]
    assert joined.repeats == {12: "8.png", 13: "11", 14: "ä.png"}
    assert joined.units["m"].argmax(axis=1).tolist() == [0, 1, 4]


def test_nothing_usable():
    nothing = ReferencePart(
        0, np.empty(0, np.int64), text(), text(), np.empty(0, np.int64), {"m": np.empty((0, 6), np.float32)}
    )
    joined = join_references([nothing, nothing])
    assert (len(joined.positions), joined.repeats, joined.units["m"].shape) == (0, {}, (0, 6))


def test_files_are_read_as_written_and_no_others_are_taken(tmp_path):
    folder = RunFolder(tmp_path)
    for part in parts():
        write_references(folder.reference(part.shard), part)
    joined, wanted = ReferenceFiles(tmp_path, 3, 2, "ab")(), join_references(parts())
    for name in ("positions", "names"):
        assert getattr(joined, name).tolist() == getattr(wanted, name).tolist()
    assert joined.repeats == wanted.repeats
    np.testing.assert_array_equal(joined.units["m"], wanted.units["m"])
    with pytest.raises(PartError, match=r"references/part-00003.h5 is another shard's or another run's"):
        ReferenceFiles(tmp_path, 3, 2, "other")()
    with pytest.raises(PartError, match=r"references/part-00005.h5 is missing"):
        ReferenceFiles(tmp_path, 4, 2, "ab")()
    path = folder.reference(4)
    content = path.read_bytes()
    where = content.index(np.eye(6, dtype=np.float32)[1:5].tobytes())
    path.write_bytes(content[:where] + b"\1" + content[where + 1 :])
    with pytest.raises(PartError, match=r"references/part-00004.h5 holds other values"):
        read_references(path, 4, "ab")
    path.write_bytes(content[:200])
    with pytest.raises(PartError, match=r"references/part-00004.h5 is not readable as HDF5"):
        read_references(path, 4, "ab")

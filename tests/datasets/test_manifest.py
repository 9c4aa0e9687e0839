"""What the user may give as DATA, and the hash of what it lists."""

import re
from pathlib import Path

import pytest

from leamfast.datasets.entry import Entry
from leamfast.datasets.formats import read_manifest
from leamfast.datasets.manifest import Manifest, grouped
from leamfast.errors import RequestError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def write(file: Path, text: str, encoding: str = "utf-8") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(encoding))
    return file


def pairs(manifest: Manifest) -> list[tuple[str, str]]:
    return [(entry.path, entry.identity) for entry in manifest.entries]


def test_a_manifest_in_the_folder_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "ann/a.jpg", "bob/b.jpg")
    write(tmp_path / "manifest.csv", "path,identity\nbob/b.jpg,Robert\n")
    assert pairs(read_manifest(tmp_path)) == [("bob/b.jpg", "Robert")]
    touch(tmp_path, "manifest.parquet")
    with pytest.raises(RequestError, match=r"one manifest.*manifest\.csv and manifest\.parquet"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("names", "data", "message"),
    [
        ([], "absent", "there is no such file or folder"),
        ([], ".", r"must hold images \(\.bmp, .*with none: give a folder"),
        (["a/notes.txt"], ".", "must hold images"),
        (["list.txt"], "list.txt", r"\.csv or \.parquet manifest, got the file"),
        (["a.jpg"], "a.jpg", "got the file"),
    ],
)
def test_data_that_is_nothing_usable(tmp_path: Path, names: list[str], data: str, message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(RequestError, match=message) as caught:
        read_manifest(tmp_path / data)
    assert str(tmp_path) in str(caught.value)


TEXT = "path,identity,label,age\na.jpg,x,,30\nb.jpg,y,m.png,31\n"


def test_the_hash_is_independent_of_the_place(tmp_path: Path) -> None:
    hashes = {
        read_manifest(write(tmp_path / place / "list.csv", TEXT)).sha256() for place in ("here", "there/deep")
    }
    assert len(hashes) == 1
    assert re.fullmatch("[0-9a-f]{64}", hashes.pop())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a.jpg", "c.jpg"),
        (",x,", ",z,"),
        ("m.png", "n.png"),
        ("m.png", ""),
        ("31", "32"),
        ("age", "years"),
        ("a.jpg,x,,30\nb.jpg,y,m.png,31\n", "b.jpg,y,m.png,31\na.jpg,x,,30\n"),
        ("a.jpg,x,,30\n", ""),
    ],
)
def test_the_hash_depends_on_every_field_and_the_order(old: str, new: str, tmp_path: Path) -> None:
    before = read_manifest(write(tmp_path / "a.csv", TEXT))
    after = read_manifest(write(tmp_path / "b.csv", TEXT.replace(old, new, 1)))
    assert before.sha256() != after.sha256()


def test_the_entries_of_an_identity_stand_together() -> None:
    entries = [Entry(path, path[0]) for path in ("b1", "a1", "b2", "c1", "a2")]
    assert [entry.path for entry in grouped(entries)] == ["b1", "b2", "a1", "a2", "c1"]
    assert grouped([]) == ()


def test_the_hash_depends_on_where_in_the_file_an_image_lies() -> None:
    places = [
        Entry("a", "x"),
        Entry("a", "x", inside="1"),
        Entry("a", "x", inside="1", spans=((0, 1),)),
        Entry("a", "x", inside="1", spans=((0, 2),)),
        Entry("a", "x", rect=(0, 0, 1, 1)),
    ]
    assert len({Manifest(Path(), (entry,)).sha256() for entry in places}) == len(places)

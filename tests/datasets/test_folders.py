"""Folders of identity folders, and the names that may stand in them."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from leamfast.datasets.entry import Entry
from leamfast.datasets.folders import names_in
from leamfast.datasets.formats import read_manifest
from leamfast.datasets.manifest import Manifest
from leamfast.errors import RequestError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def pairs(manifest: Manifest) -> list[tuple[str, str]]:
    return [(entry.path, entry.identity) for entry in manifest.entries]


def test_a_folder_of_identity_folders(tmp_path: Path) -> None:
    touch(tmp_path, "ann/img10.jpg", "ann/img2.JPG", "ann/2019/b.png", "bob2/x.webp", "bob10/x.jpeg")
    touch(
        tmp_path, "ann/notes.txt", "README.md", ".hidden.jpg", "ann/.thumbs/t.jpg", ".git/a.png", "none/a.txt"
    )
    manifest = read_manifest(tmp_path)
    assert pairs(manifest) == [
        ("ann/2019/b.png", "ann"),
        ("ann/img2.JPG", "ann"),
        ("ann/img10.jpg", "ann"),
        ("bob2/x.webp", "bob2"),
        ("bob10/x.jpeg", "bob10"),
    ]
    assert manifest.identities == ("ann", "bob2", "bob10")
    assert manifest.ignored == 3
    assert manifest.columns == ()
    assert manifest.root == tmp_path
    assert manifest.resolve(manifest.entries[0]) == tmp_path / "ann/2019/b.png"
    assert manifest.resolve_label(manifest.entries[0]) is None
    assert read_manifest(str(tmp_path)) == manifest


def test_images_in_the_folder_itself_are_one_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = touch(tmp_path / "carla", "b.jpg", "a.jpg", "dan/c.jpg", "z.jpg")
    expected = [("a.jpg", "carla"), ("b.jpg", "carla"), ("z.jpg", "carla"), ("dan/c.jpg", "dan")]
    assert pairs(read_manifest(folder)) == expected
    monkeypatch.chdir(folder)
    assert pairs(read_manifest(".")) == expected


def test_two_identities_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = touch(tmp_path / "carla", "a.jpg", "carla/b.jpg")
    with pytest.raises(RequestError, match="must name each identity once.*'carla'.*rename"):
        read_manifest(folder)


def test_links_to_folders_are_followed_and_loops_refused(tmp_path: Path) -> None:
    store = touch(tmp_path / "store", "one/a.jpg")
    folder = touch(tmp_path / "data", "bob/b.jpg")
    (folder / "ann").symlink_to(store / "one")
    (folder / "bob" / "more").symlink_to(store / "one")
    assert pairs(read_manifest(folder)) == [
        ("ann/a.jpg", "ann"),
        ("bob/b.jpg", "bob"),
        ("bob/more/a.jpg", "bob"),
    ]
    (folder / "bob" / "loop").symlink_to(folder)
    with pytest.raises(RequestError, match="must be a tree of folders"):
        read_manifest(folder)


def test_a_link_that_leads_nowhere_or_to_itself_is_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "ann/a.jpg")
    (tmp_path / "ann" / "b.jpg").symlink_to("b.jpg")
    (tmp_path / "ann" / "c.jpg").symlink_to("/nowhere/c.jpg")
    assert [entry.path for entry in read_manifest(tmp_path).entries] == [
        "ann/a.jpg",
        "ann/b.jpg",
        "ann/c.jpg",
    ]


def test_folders_deeper_than_the_stack_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = 1200
    (tmp_path / "ann").mkdir()
    monkeypatch.chdir(tmp_path / "ann")
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    Path("a.jpg").touch()
    monkeypatch.chdir(tmp_path)
    assert pairs(read_manifest(tmp_path)) == [("ann/" + depth * "d/" + "a.jpg", "ann")]
    subprocess.run(["rm", "-rf", tmp_path / "ann"], check=True)  # pytest's own removal is recursive


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    folder = touch(tmp_path / "d", "ann/a.jpg", "ann/b\udcff.jpg")
    with pytest.raises(RequestError, match=r"names in UTF-8.*the path 'ann/b.udcff\.jpg'.*rename it"):
        read_manifest(folder)
    (folder / "ann" / "b\udcff.jpg").rename(folder / "ann" / "b\udcff.txt")
    assert read_manifest(folder).ignored == 1
    folder = folder.rename(tmp_path / "d\udcff")
    with pytest.raises(RequestError, match=r"must have names in UTF-8, got the folder '.*udcff': rename it"):
        read_manifest(folder)


def test_names_of_every_script_and_length(tmp_path: Path) -> None:
    long = "長" * 80  # 240 bytes, near the 255 that file systems allow
    people = ["Żółw", "محمد", "夏目 漱石", 'O\'Neil, "Pat"', "#1@home", "Ελένη", long, "👩‍🚀"]
    touch(tmp_path, *(f"{name}/{name[:5]}.jpg" for name in people))
    manifest = read_manifest(tmp_path)
    assert sorted(manifest.identities) == sorted(people)
    assert all(manifest.resolve(entry).is_file() for entry in manifest.entries)


def test_ten_thousand_folders_in_natural_order(tmp_path: Path) -> None:
    count = 10_000
    for number in range(count):
        (tmp_path / f"p{number}").mkdir()
        (tmp_path / f"p{number}" / "a.jpg").touch()
    manifest = read_manifest(tmp_path)
    assert manifest.identities == tuple(f"p{number}" for number in range(count))
    shutil.rmtree(tmp_path)  # pytest keeps folders of passed tests, and clears them slowly


def test_a_hundred_thousand_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The listing is made up: a tree of so many takes the file system half a minute to clear.
    count = 100_000

    @dataclass
    class Item:
        name: str

        def is_dir(self) -> bool:
            return "." not in self.name

    class Listing(list[Item]):
        def __enter__(self) -> "Listing":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def scandir(folder: Path) -> Listing:
        return (
            Listing(Item(f"p{i}") for i in range(count)) if folder == tmp_path else Listing([Item("a.jpg")])
        )

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(Path, "stat", lambda path, real=Path.stat, **_: real(tmp_path))
    manifest = read_manifest(tmp_path)
    assert len(manifest.entries) == len(manifest.identities) == count
    assert manifest.entries[-1] == Entry("p99999/a.jpg", "p99999")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="must be a folder of identity folders, got the file"):
        read_manifest(touch(tmp_path, "a.jpg") / "a.jpg", format="folders")


def test_names_in_a_folder_that_cannot_be(tmp_path: Path) -> None:
    touch(tmp_path, "ann/a.jpg")
    assert names_in(f"{tmp_path}/ann") == {"a.jpg"}
    for absent in ("bob", "ann/a.jpg", "x" * 300):
        assert names_in(f"{tmp_path}/{absent}") == frozenset()

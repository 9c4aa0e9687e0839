"""Which format DATA is taken for, in which order, and what unknown ones are told."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from leamfast.datasets.entry import Entry
from leamfast.datasets.formats import AUTO, FORMATS, find_format, read_manifest
from leamfast.datasets.manifest import Manifest
from leamfast.errors import RequestError

IMDB_HEADER = "name,index,image,rect,height width,url\n"
TABLE = "path,identity\nx.jpg,Xu\n"


def make(folder: Path, *names: str) -> Path:
    for name in names:
        content = TABLE if name.endswith(".csv") else IMDB_HEADER if "IMDb" in name else ""
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def test_the_formats_and_their_order() -> None:
    assert list(FORMATS) == ["manifest", "imdbface", "lfw", "recordio", "bin", "webdataset", "folders"]
    assert all(name == known.name and known.summary for name, known in FORMATS.items())


@pytest.mark.parametrize(
    ("names", "data", "format"),
    [
        (["ann/a.jpg"], ".", "folders"),
        (["a.jpg"], ".", "folders"),
        ([".hidden/a.jpg", "notes.txt"], ".", "folders"),
        (["list.csv"], "list.csv", "manifest"),
        (["list.Parquet"], "list.Parquet", "manifest"),
        (["manifest.csv", "pairs.txt", "train.rec", "a.tar", "ann/a.jpg"], ".", "manifest"),
        (["manifest.parquet"], ".", "manifest"),
        (["list.csv", "ann/a.jpg"], ".", "folders"),
        (["Ann/a.jpg", "pairs.txt"], ".", "lfw"),
        (["Ann/a.jpg", "people.txt"], ".", "lfw"),
        (["pairs.txt"], "pairs.txt", "lfw"),
        (["pairs.txt", "train.rec"], ".", "lfw"),
        (["train.rec", "train.idx", "lfw.bin", "property"], ".", "recordio"),
        (["faces.rec"], "faces.rec", "recordio"),
        (["lfw.bin"], "lfw.bin", "bin"),
        (["0.tar", "1.tar", "index.json"], ".", "webdataset"),
        (["0.TAR"], "0.TAR", "webdataset"),
        (["0.tar", "ann/a.jpg"], ".", "folders"),
        ([".0.tar", "a.jpg"], ".", "folders"),
    ],
)
def test_what_data_is_taken_for(names: list[str], data: str, format: str, tmp_path: Path) -> None:
    assert find_format(make(tmp_path, *names) / data).name == format


def test_a_list_of_imdb_faces_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(IMDB_HEADER)
    assert find_format(tmp_path / "list.csv").name == "imdbface"
    (tmp_path / "list.csv").rename(tmp_path / "IMDb-Face.csv")
    make(tmp_path, "Ann/a.jpg", "pairs.txt")
    assert find_format(tmp_path).name == "imdbface"
    make(tmp_path, "manifest.csv")
    assert find_format(tmp_path).name == "manifest"


def test_a_format_that_is_given_goes_before_what_data_looks_like(tmp_path: Path) -> None:
    make(tmp_path, "ann/a.jpg", "manifest.csv", "manifest.parquet", "pairs.txt")
    manifest = read_manifest(tmp_path, format="folders")
    assert manifest.entries == (Entry("ann/a.jpg", "ann"),)
    assert manifest.ignored == 3
    with pytest.raises(RequestError, match="must hold one manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("format", ["", "Folders", "tfrecord"])
def test_an_unknown_format_is_told_the_choices(format: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        read_manifest(tmp_path, format=format)
    assert str(caught.value) == (
        "--format must be one of auto, manifest, imdbface, lfw, recordio, bin, webdataset, folders, "
        f"got {format!r}"
    )


@pytest.mark.parametrize("format", [AUTO, "manifest", "imdbface", "lfw", "folders"])
def test_data_that_is_missing_or_no_file(format: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no such file or folder"):
        read_manifest(tmp_path / "absent", format)
    with pytest.raises(RequestError, match=r"^(DATA|manifest) .*notes\.txt"):
        read_manifest(make(tmp_path, "notes.txt") / "notes.txt", format)


def test_a_file_of_no_format_is_told_the_others(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"\.csv or \.parquet manifest, got the file .*--format names .*lfw"
    ):
        read_manifest(make(tmp_path, "notes.txt") / "notes.txt")


@pytest.mark.parametrize(
    ("format", "module", "function", "file"),
    [
        ("recordio", "recordio", "read_recordio", "train.rec"),
        ("bin", "verification", "read_verification", "lfw.bin"),
        ("webdataset", "webdataset", "read_webdataset", "0.tar"),
    ],
)
def test_readers_that_are_imported_when_called(
    format: str, module: str, function: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = ModuleType(module)
    setattr(stand_in, function, lambda path: Manifest(path, (Entry(file, format),)))
    monkeypatch.setitem(sys.modules, f"leamfast.datasets.{module}", stand_in)
    path = make(tmp_path, file) / file
    assert read_manifest(path).entries == (Entry(file, format),)
    assert read_manifest(path, format).root == path

    def refuse(path: Path) -> Manifest:
        raise PermissionError(13, "Permission denied", str(path))

    setattr(stand_in, function, refuse)
    with pytest.raises(RequestError, match=rf"must be readable, got .*{file}: permission denied"):
        read_manifest(path)


@pytest.mark.parametrize("text", ["a\udcff", "a\0"])
@pytest.mark.parametrize("where", ["path", "identity", "label", "inside", "metadata"])
@pytest.mark.parametrize("format", FORMATS)
def test_names_that_cannot_be_kept_are_refused_in_every_format(
    format: str, where: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry("a.jpg", "ann", None, {"age": "7"})
    bad = replace(entry, **{where: {"age": text} if where == "metadata" else text})
    reader = replace(FORMATS[format], read=lambda path: Manifest(path, (entry, bad), ("age",)))
    monkeypatch.setitem(FORMATS, format, reader)
    what = {"inside": "name inside", "metadata": "age"}.get(where, where)
    with pytest.raises(RequestError) as caught:
        read_manifest(tmp_path, format)
    assert f"DATA must have names in UTF-8 without NUL bytes, got the {what} {text!r} of" in str(caught.value)


def test_recognising_a_folder_of_folders_does_not_list_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0

    class Item:
        name = "p"

        def is_dir(self) -> bool:
            nonlocal seen
            seen += 1
            return True

    class Listing(list[Item]):
        def __enter__(self) -> "Listing":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("os.scandir", lambda folder: Listing([Item()] * 100_000))
    assert find_format(tmp_path).name == "folders"
    assert seen == 1

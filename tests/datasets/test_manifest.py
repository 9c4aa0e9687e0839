"""What the user may give as DATA, and the sentence that answers everything else."""

import re
import sys
from pathlib import Path

import pytest

from leamfast.datasets.entry import Entry
from leamfast.datasets.manifest import Manifest, read_manifest
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


# Folders


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


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "ann/a.jpg", "ann/b\udcff.jpg")
    with pytest.raises(RequestError, match="must have names in UTF-8.*rename it"):
        read_manifest(tmp_path)


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


# CSV


def test_a_csv_manifest(tmp_path: Path) -> None:
    file = write(
        tmp_path / "list.csv",
        "label,path,camera,identity,age group\r\n"
        ",b/1.jpg,left,Bob,30\r\n"
        "\r\n"
        'm/a1.png,a/1.jpg, right ,"Ann, A.",\r\n'
        ",,,,\r\n"
        ",/data/b2.jpg,,Bob,31\r\n",
    )
    manifest = read_manifest(file)
    assert manifest.entries == (
        Entry("b/1.jpg", "Bob", None, {"camera": "left", "age group": "30"}),
        Entry("/data/b2.jpg", "Bob", None, {"camera": "", "age group": "31"}),
        Entry("a/1.jpg", "Ann, A.", "m/a1.png", {"camera": "right", "age group": ""}),
    )
    assert manifest.columns == ("camera", "age group")
    assert manifest.identities == ("Bob", "Ann, A.")
    assert manifest.resolve(manifest.entries[1]) == Path("/data/b2.jpg")
    assert manifest.resolve(manifest.entries[2]) == tmp_path / "a/1.jpg"
    assert manifest.resolve_label(manifest.entries[2]) == tmp_path / "m/a1.png"


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    file = write(tmp_path / "LIST.CSV", "path, identity\na.jpg,Zoë\n", "utf-8-sig")
    assert pairs(read_manifest(file)) == [("a.jpg", "Zoë")]


BROKEN = {
    "empty file": ("", "line 1, names no column 'path'"),
    "no path": ("file,identity\na,b\n", "line 1, names no column 'path'"),
    "no identity": ("path\na\n", "line 1, names no column 'identity'"),
    "semicolons": ("path;identity\na;b\n", "line 1, names no column 'path': .* with commas"),
    "column twice": ("path,identity,age,age\na,b,1,2\n", "line 1, names the column 'age' twice"),
    "identity twice": ("path,identity,identity\na,b,c\n", "line 1, names the column 'identity' twice"),
    "slash": ("path,identity,a/b\nx,y,z\n", "line 1, has the column name 'a/b'"),
    "dots": ("path,identity,..\nx,y,z\n", r"line 1, has the column name '\.\.'"),
    "unnamed": ("path,identity,\nx,y,z\n", "line 1, has the column name ''"),
    "reserved": ("path,identity,sha1\nx,y,z\n", "line 1, has the column name 'sha1', which results use"),
    "dimension": ("path,identity,region\nx,y,z\n", "line 1, has the column name 'region', which results use"),
    "short row": ("path,identity\na,b\nc\n", "line 3, has 1 cells where the header names 2 columns"),
    "long row": ("path,identity\n\n\na,b,c\n", "line 4, has 3 cells where the header names 2 columns"),
    "empty path": ("path,identity\n ,b\n", "line 2, has an empty path"),
    "empty identity": ("path,identity\na,\n", "line 2, has an empty identity"),
    "same path": (
        "path,identity\na/b.jpg,x\nc,x\na/b.jpg,y\n",
        "line 4, repeats the path 'a/b.jpg' of line 2",
    ),
    "same place": ("path,identity\na/b.jpg,x\n./a/../a/b.jpg,y\n", "line 3, repeats the path .* of line 2"),
    "nul": ("path,identity\na\0b,x\n", "line 2, has a NUL byte in column 'path'"),
    "header only": ("path,identity\n", "with none: add a row per image"),
    "quotes": ('path,identity\na,"b"c\n', "line 2, is not well-formed CSV"),
    "open quote": ('path,identity\na,"b\n', "is not well-formed CSV"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_manifest_is_refused_with_file_line_and_rule(name: str, tmp_path: Path) -> None:
    text, message = BROKEN[name]
    with pytest.raises(RequestError, match=re.escape(str(tmp_path / "list.csv")) + ".*" + message):
        read_manifest(write(tmp_path / "list.csv", text))


def test_the_same_file_written_absolutely_is_a_repetition(tmp_path: Path) -> None:
    file = write(tmp_path / "list.csv", f"path,identity\na.jpg,x\n{tmp_path}/a.jpg,x\n")
    with pytest.raises(RequestError, match="line 3, repeats the path"):
        read_manifest(file)


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "list.csv", "path,identity\na.jpg,Zoë\n", "latin-1")
    with pytest.raises(RequestError, match="must be UTF-8"):
        read_manifest(file)


def test_a_manifest_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "list.csv", "path,identity\na.jpg,x\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RequestError, match=r"must be readable, got .*list\.csv: permission denied"):
        read_manifest(file)


# Parquet


def test_parquet_without_pyarrow_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(RequestError, match="needs the package pyarrow.*pip install pyarrow"):
        read_manifest(touch(tmp_path, "list.parquet") / "list.parquet")


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table(
        {
            "path": ["b/1.jpg", "a/1.jpg", "b/2.jpg"],
            "identity": [7, 8, 7],
            "label": [None, "m.png", None],
            "age": [30, None, 31],
        }
    )
    parquet.write_table(table, tmp_path / "list.parquet")
    text = "path,identity,label,age\nb/1.jpg,7,,30\na/1.jpg,8,m.png,\nb/2.jpg,7,,31\n"
    expected = read_manifest(write(tmp_path / "list.csv", text))
    manifest = read_manifest(tmp_path / "list.parquet")
    assert manifest == expected
    assert manifest.sha256() == expected.sha256()
    parquet.write_table(table, tmp_path / "manifest.parquet")
    assert read_manifest(tmp_path) == expected


def test_broken_parquet_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "list.parquet"
    file.write_bytes(b"PAR1 no more than this")
    with pytest.raises(RequestError, match="must be a Parquet file"):
        read_manifest(file)
    parquet.write_table(pyarrow.table({"path": ["a", "b"], "identity": ["x", None]}), file)
    with pytest.raises(RequestError, match="row 2, has an empty identity"):
        read_manifest(file)
    parquet.write_table(pyarrow.table({"path": ["a"], "identity": ["x"], "box": [[1, 2]]}), file)
    with pytest.raises(RequestError, match="row 1, column 'box', with a list"):
        read_manifest(file)


# The hash

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

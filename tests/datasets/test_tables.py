"""Manifests as CSV and Parquet files, and the sentence that answers every broken one."""

import re
import struct
import sys
from pathlib import Path

import pytest

from leamfast.datasets.entry import Entry
from leamfast.datasets.formats import read_manifest
from leamfast.datasets.manifest import Manifest
from leamfast.datasets.tables import find_table
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
    "points": ("path,identity,points\nx,y,z\n", "line 1, has the column name 'points', which results use"),
    "dimension": ("path,identity,region\nx,y,z\n", "line 1, has the column name 'region', which results use"),
    "short row": ("path,identity\na,b\nc\n", "line 3, has 1 cells where the header names 2 columns"),
    "long row": ("path,identity\n\n\na,b,c\n", "line 4, has 3 cells where the header names 2 columns"),
    "empty path": ("path,identity\n ,b\n", "line 2, has an empty path"),
    "empty identity": ("path,identity\na,\n", "line 2, has an empty identity"),
    "same path": (
        "path,identity\na/b.jpg,x\nc,x\na/b.jpg,y\n",
        "line 4, repeats the path 'a/b.jpg' of line 2: list an image once",
    ),
    "same place": ("path,identity\na/b.jpg,x\n./a/../a/b.jpg,y\n", "line 3, repeats the path .* of line 2"),
    "nul": ("path,identity\na\0b,x\n", "line 2, has a NUL byte in column 'path'"),
    "many columns": (
        "path,identity," + ",".join(f"c{i}" for i in range(201)) + "\n",
        "line 1, names 201 metadata columns, at most 200 fit: leave some out",
    ),
    "long column": ("path,identity," + "c" * 101 + "\nx,y,z\n", "line 1, has the column name 'c+': use"),
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
    parquet.write_table(
        pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 3, ["path", "identity", "path"]), file
    )
    with pytest.raises(RequestError, match="column names, names the column 'path' twice"):
        read_manifest(file)


def test_parquet_with_values_that_python_cannot_hold(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    ends = pyarrow.py_buffer(struct.pack("<2i", 0, 2))
    latin = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, ends, pyarrow.py_buffer(b"\xffe")])
    file = tmp_path / "list.parquet"
    for column in ("path", "identity", "name"):
        columns = {"path": ["a"], "identity": ["x"]} | {column: latin}
        parquet.write_table(pyarrow.table(columns), file)
        with pytest.raises(RequestError, match=f"must be UTF-8, .* other bytes in column '{column}'"):
            read_manifest(file)
    late = pyarrow.array([2**62], pyarrow.timestamp("us"))
    parquet.write_table(pyarrow.table({"path": ["a"], "identity": ["x"], "day": late}), file)
    with pytest.raises(RequestError, match=r"column 'day', with timestamp\[us\] that Python cannot hold"):
        read_manifest(file)


def test_parquet_cut_in_the_middle_is_refused_in_one_line(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "list.parquet"
    parquet.write_table(pyarrow.table({"path": ["a", "b"], "identity": ["x", "y"]}), file)
    data = file.read_bytes()
    for end in range(0, len(data), 5):
        for rest in (b"", data[-300:], data[-60:]):
            file.write_bytes(data[:end] + rest)
            with pytest.raises(RequestError) as caught:
                read_manifest(file)
            assert re.fullmatch(r"[^\n]*list\.parquet[^\n]*", str(caught.value))


# Where in its file an image lies


def test_images_in_spans_and_parts_of_pictures(tmp_path: Path) -> None:
    file = write(
        tmp_path / "list.csv",
        "path,identity,inside,spans,rect,age\n"
        "a.rec,Ann,1,8:100,,30\n"
        "a.rec,Bob,2,108:50 200:7,,31\n"
        "two.jpg,Ann,,,0 0 10 12,32\n"
        "two.jpg,Bob,,,10 0 20 12,33\n"
        "a.rec,Ann,1,8:100,1 1 2 2,34\n",
    )
    manifest = read_manifest(file)
    assert manifest.entries == (
        Entry("a.rec", "Ann", None, {"age": "30"}, "1", ((8, 100),)),
        Entry("two.jpg", "Ann", None, {"age": "32"}, rect=(0, 0, 10, 12)),
        Entry("a.rec", "Ann", None, {"age": "34"}, "1", ((8, 100),), (1, 1, 2, 2)),
        Entry("a.rec", "Bob", None, {"age": "31"}, "2", ((108, 50), (200, 7))),
        Entry("two.jpg", "Bob", None, {"age": "33"}, rect=(10, 0, 20, 12)),
    )
    assert manifest.columns == ("age",)
    names = [entry.name for entry in manifest.entries]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("header", "first", "second", "repeated"),
    [
        ("inside", "1", "1", "a#1"),
        ("rect", "0 0 1 1", "0 0 1 1", "a@0,0,1,1"),
        ("inside", "", "", "a"),
        # Without names of their own the two could not be told apart in results.
        ("spans", "0:1", "1:1", "a"),
    ],
)
def test_two_identities_cannot_share_an_image(
    header: str, first: str, second: str, repeated: str, tmp_path: Path
) -> None:
    text = f"path,identity,{header}\na,Ann,{first}\nb,Ann,{first}\n./a,Bob,{second}\n"
    with pytest.raises(RequestError, match=f"line 4, repeats the path '(./)?{repeated}' of line 2"):
        read_manifest(write(tmp_path / "list.csv", text))


@pytest.mark.parametrize(
    "cell", ["8", "8:", ":8", "8:0", "-1:8", "8:8  8:8", "8:8,8:8", "٨:٨", "1:" + "9" * 19]
)
def test_spans_that_are_none(cell: str, tmp_path: Path) -> None:
    file = write(tmp_path / "list.csv", f'path,identity,spans\na,Ann,"{cell}"\n')
    with pytest.raises(RequestError, match=r"line 2, has the spans .*: write offset:length"):
        read_manifest(file)


@pytest.mark.parametrize(
    "cell",
    ["1 2 3", "1 2 3 4 5", "a b c d", "-1 0 2 2", "1.0 0 2 2", "2 0 2 2", "0 3 2 2", "0,0,2,2", "1" * 5000],
)
def test_rects_that_are_none(cell: str, tmp_path: Path) -> None:
    file = write(tmp_path / "list.csv", f'path,identity,rect\na,Ann,"{cell}"\n')
    with pytest.raises(RequestError, match=r"line 2, has the rect .*: write x1 y1 x2 y2"):
        read_manifest(file)


@pytest.mark.parametrize("path", ["..", "../a.jpg", "a/../../b.jpg", "./../list/a.jpg"])
@pytest.mark.parametrize("column", ["path", "label"])
def test_a_path_that_leaves_the_folder_is_refused(path: str, column: str, tmp_path: Path) -> None:
    cells = {"path": "a.jpg", "label": "", column: path}
    file = write(
        tmp_path / "list" / "list.csv", f"path,identity,label\n{cells['path']},Ann,{cells['label']}\n"
    )
    with pytest.raises(
        RequestError, match=rf"line 2, has the {column} .*leaves the manifest's folder.*absolutely"
    ):
        read_manifest(file)


def test_names_with_slashes_of_every_script_and_length(tmp_path: Path) -> None:
    long = "й" * 5000
    text = f'path,identity\na.jpg,AC/DC\nb.jpg,"夏目, 漱石"\nc.jpg,../x\nd..jpg,{long}\n..e/f.jpg,e\n'
    manifest = read_manifest(write(tmp_path / "list.csv", text))
    assert manifest.identities == ("AC/DC", "夏目, 漱石", "../x", long, "e")


def test_the_table_that_a_path_names(tmp_path: Path) -> None:
    assert find_table(tmp_path) is None
    assert find_table(tmp_path / "x.PARQUET") == tmp_path / "x.PARQUET"
    assert find_table(tmp_path / "x.txt") is None
    file = write(tmp_path / "manifest.csv", "path,identity\na,b\n")
    assert find_table(tmp_path) == file
    file.unlink()
    with pytest.raises(RequestError, match=r"or a folder with manifest\.csv or manifest\.parquet, got"):
        read_manifest(tmp_path, format="manifest")

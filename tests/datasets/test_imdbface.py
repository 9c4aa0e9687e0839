"""IMDb-Face's list beside pictures, written here by its description."""

from pathlib import Path

import pytest

from leamfast.datasets.entry import Entry
from leamfast.datasets.formats import read_manifest
from leamfast.datasets.imdbface import is_imdbface, read_imdbface
from leamfast.errors import RequestError

HEADER = "name,index,image,rect,height width,url\n"


def listed(file: Path, *rows: str, header: str = HEADER) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes((header + "".join(f"{row}\n" for row in rows)).encode())
    return file


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_faces_with_their_rects(tmp_path: Path) -> None:
    pictures(tmp_path, "Ann/1.jpg", "2.jpg", "images/3.jpg", "images/Bob/4.jpg", "images/1.jpg")
    file = listed(
        tmp_path / "list.csv",
        "Ann,0,1.jpg,10 20 110 140,200 300,http://x/1.jpg",
        "Bob,1,2.jpg,0 0 300 200,200 300,",
        "Ann,2,3.jpg,1 1 2 2,2 2,u",
        'Bob,3,4.jpg," 0  0 1 1",1 1,"a,b"',
        "Bob,4,2.jpg,5 5 6 6,200 300,u",
    )
    manifest = read_manifest(file)
    assert manifest.entries == (
        Entry("Ann/1.jpg", "Ann", None, {"index": "0", "url": "http://x/1.jpg"}, rect=(10, 20, 110, 140)),
        Entry("images/3.jpg", "Ann", None, {"index": "2", "url": "u"}, rect=(1, 1, 2, 2)),
        Entry("2.jpg", "Bob", None, {"index": "1", "url": ""}, rect=(0, 0, 300, 200)),
        Entry("images/Bob/4.jpg", "Bob", None, {"index": "3", "url": "a,b"}, rect=(0, 0, 1, 1)),
        Entry("2.jpg", "Bob", None, {"index": "4", "url": "u"}, rect=(5, 5, 6, 6)),
    )
    assert manifest.columns == ("index", "url")
    assert manifest.left_out == {}
    file.rename(tmp_path / "IMDb-Face.csv")
    assert read_manifest(tmp_path) == manifest


def test_two_identities_in_one_picture(tmp_path: Path) -> None:
    pictures(tmp_path, "both.jpg")
    file = listed(
        tmp_path / "list.csv",
        "Ann,0,both.jpg,0 0 10 10,10 20,",
        "Bob,0,both.jpg,10 0 20 10,10 20,",
        "Cid,0,both.jpg,10 0 20 10,10 20,",
    )
    manifest = read_manifest(file)
    assert [entry.name for entry in manifest.entries] == ["both.jpg@0,0,10,10", "both.jpg@10,0,20,10"]
    assert manifest.left_out == {"face listed before": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("Ann,1,gone.jpg,0 0 1 1,9 9,", "picture not on disk"),
        ("Ann,1,gone/a.jpg,0 0 1 1,9 9,", "picture not on disk"),
        (f"Ann,1,{'x' * 300}.jpg,0 0 1 1,9 9,", "picture not on disk"),
        ("Ann,1,../../x.jpg,0 0 1 1,9 9,", "picture outside of the list's folder"),
        ("Ann,1,/etc/x.jpg,0 0 1 1,9 9,", "picture outside of the list's folder"),
        ("Ann,1,a.jpg,0 0 1,9 9,", "rect is not four whole numbers"),
        ("Ann,1,a.jpg,0 0 1 1 1,9 9,", "rect is not four whole numbers"),
        ("Ann,1,a.jpg,0 0 1.5 1,9 9,", "rect is not four whole numbers"),
        ("Ann,1,a.jpg,,9 9,", "rect is not four whole numbers"),
        (f"Ann,1,a.jpg,0 0 1 {'1' * 5000},9 9,", "rect is not four whole numbers"),
        ("Ann,1,a.jpg,0 0 1 1,9,", "height width is not two whole numbers"),
        ("Ann,1,a.jpg,0 0 1 1,nine 9,", "height width is not two whole numbers"),
        ("Ann,1,a.jpg,0 0 10 9,9 9,", "rect is empty or reaches beyond height and width"),
        ("Ann,1,a.jpg,0 0 9 8,9 8,", "rect is empty or reaches beyond height and width"),
        ("Ann,1,a.jpg,-1 0 9 9,9 9,", "rect is empty or reaches beyond height and width"),
        ("Ann,1,a.jpg,3 0 3 9,9 9,", "rect is empty or reaches beyond height and width"),
        ("Ann,1,a.jpg,4 0 3 9,9 9,", "rect is empty or reaches beyond height and width"),
        ("Ann,1,a.jpg,1 1 2 2,9 9,", "face listed before"),
    ],
)
def test_what_is_left_out_and_why(row: str, reason: str, tmp_path: Path) -> None:
    pictures(tmp_path, "data/Ann/a.jpg", "x.jpg")
    good = "Ann,0,a.jpg,1 1 2 2,9 9,"
    manifest = read_manifest(listed(tmp_path / "data" / "list.csv", good, row, row))
    assert len(manifest.entries) == 1
    assert manifest.left_out == {reason: 2}
    if reason != "face listed before":
        with pytest.raises(RequestError, match=rf"list\.csv with none \({reason}: 1\): put them beside it"):
            read_manifest(listed(tmp_path / "data" / "list.csv", row))


def test_names_with_slashes_of_every_script_and_length(tmp_path: Path) -> None:
    pictures(tmp_path, "AC/DC/a.jpg", "夏目 漱石/b.jpg", "c/d.jpg", "e.jpg")
    file = listed(
        tmp_path / "list.csv",
        "AC/DC,0,a.jpg,0 0 1 1,1 1,",
        "夏目 漱石,0,b.jpg,0 0 1 1,1 1,",
        "Ann,0,c/./d.jpg,0 0 1 1,1 1,",
        "../up,0,e.jpg,0 0 1 1,1 1,",
        f"{'長' * 400},0,e.jpg,0 0 1 1,1 1,",
    )
    manifest = read_manifest(file)
    assert [(entry.path, entry.identity) for entry in manifest.entries] == [
        ("AC/DC/a.jpg", "AC/DC"),
        ("夏目 漱石/b.jpg", "夏目 漱石"),
        ("c/d.jpg", "Ann"),
        ("e.jpg", "../up"),
    ]
    assert manifest.left_out == {"face listed before": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,index,image,rect,url\n",
            "line 1, must have the header name,index,image,rect,height width,url",
        ),
        ("", "line 1, must have the header"),
        (HEADER + "Ann,0,a.jpg,0 0 1 1,1 1\n", "line 2, has 5 cells where the header names 6"),
        (HEADER + ",0,a.jpg,0 0 1 1,1 1,\n", "line 2, has the name ''"),
        (HEADER + "Ann,0,,0 0 1 1,1 1,\n", "line 2, has the image ''"),
        (HEADER + "Ann,0,a\0b,0 0 1 1,1 1,\n", "line 2, has the image"),
        (HEADER + "Ann,0,a,0 0 1 1,1 1,http\0\n", "line 2, has the url .*: it holds a NUL byte"),
        (HEADER, r"with none \(no rows\)"),
    ],
)
def test_a_list_that_is_none(text: str, message: str, tmp_path: Path) -> None:
    file = listed(tmp_path / "list.csv", header=text)
    with pytest.raises(RequestError, match=message):
        read_manifest(file, "imdbface")


def test_what_is_recognised(tmp_path: Path) -> None:
    assert is_imdbface(listed(tmp_path / "a.CSV"))
    assert is_imdbface(listed(tmp_path / "b.csv", header="\ufeff" + HEADER.replace("\n", "\r\n")))
    assert is_imdbface(
        listed(tmp_path / "c.csv", header='"name","index","image","rect","height width","url"\n')
    )
    assert not is_imdbface(listed(tmp_path / "d.csv", header="path,identity\n"))
    assert not is_imdbface(listed(tmp_path / "e.csv", header="name,image,index,rect,height width,url\n"))
    assert not is_imdbface(listed(tmp_path / "f.txt"))
    assert not is_imdbface(listed(tmp_path / "g.csv", header="\xff" * 1000))
    assert not is_imdbface(tmp_path)
    with pytest.raises(RequestError, match=r"a folder with IMDb-Face\.csv, got"):
        read_imdbface(tmp_path)

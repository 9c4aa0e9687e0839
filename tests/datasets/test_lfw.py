"""LFW's layout and lists, written here as its README describes them."""

from pathlib import Path

import pytest

from leamfast.datasets.formats import read_manifest
from leamfast.datasets.lfw import UNNAMED, Pair, is_lfw, read_lfw, read_pairs
from leamfast.datasets.manifest import Manifest
from leamfast.errors import RequestError

# Two folds of one pair of each kind, as in LFW's own pairs.txt.
PAIRS = "2\t1\nAnn_Lee\t1\t4\nAnn_Lee\t2\tBob\t1\nBob\t1\t2\nCid\t10\tAnn_Lee\t1\n"
PEOPLE = "2\n2\nAnn_Lee\t4\nBob\t2\n1\nCid\t10\n"


def images(folder: Path, *stems: str, suffix: str = ".jpg") -> Path:
    for stem in stems:
        place = folder / stem.rpartition("_")[0] / f"{stem}{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    return folder


def write(file: Path, text: str, encoding: str = "utf-8") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(encoding))
    return file


def paths(manifest: Manifest) -> list[str]:
    return [entry.path for entry in manifest.entries]


def test_the_images_that_pairs_name(tmp_path: Path) -> None:
    images(tmp_path, "Ann_Lee_0001", "Ann_Lee_0002", "Ann_Lee_0003", "Bob_0001", "Bob_0002", "Cid_0010")
    write(tmp_path / "pairs.txt", PAIRS)
    manifest = read_manifest(tmp_path)
    assert paths(manifest) == [
        "Ann_Lee/Ann_Lee_0001.jpg",
        "Ann_Lee/Ann_Lee_0002.jpg",
        "Bob/Bob_0001.jpg",
        "Bob/Bob_0002.jpg",
        "Cid/Cid_0010.jpg",
    ]
    assert manifest.identities == ("Ann_Lee", "Bob", "Cid")
    assert manifest.left_out == {"image not on disk": 1, UNNAMED: 1}  # Ann_Lee_0004; Ann_Lee_0003
    assert manifest.root == tmp_path
    assert read_lfw(tmp_path / "pairs.txt") == manifest


def test_all_images_of_the_people(tmp_path: Path) -> None:
    images(tmp_path, "Ann_Lee_0001", "Ann_Lee_0003", "Ann_Lee_0005", "Bob_0002", "Dan_0001")
    write(tmp_path / "people.txt", PEOPLE)
    manifest = read_manifest(tmp_path)
    assert paths(manifest) == ["Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0003.jpg", "Bob/Bob_0002.jpg"]
    assert manifest.left_out == {"image not on disk": 2 + 1 + 10, UNNAMED: 1}  # Ann_Lee_0005


def test_a_list_of_a_billion_images_is_read_in_no_time(tmp_path: Path) -> None:
    images(tmp_path, "P0_0001", "P0_0000", "P0_1", "P0_00002", "P0_12345", "P0_x", "P7_0002", "P7_999999")
    write(tmp_path / "people.txt", "1000\n" + "".join(f"P{i}\t999999\n" for i in range(1000)))
    manifest = read_manifest(tmp_path)
    expected = ["P0/P0_0001.jpg", "P0/P0_12345.jpg", "P7/P7_0002.jpg", "P7/P7_999999.jpg"]
    assert paths(manifest) == expected
    assert manifest.left_out == {"image not on disk": 999_999_000 - 4, UNNAMED: 4}


def test_both_lists_name_images_together_and_one_alone(tmp_path: Path) -> None:
    images(
        tmp_path, "Ann_Lee_0001", "Ann_Lee_0002", "Bob_0001", "Bob_0002", "Bob_0007", "Cid_0010", "Cid_0003"
    )
    write(tmp_path / "pairs.txt", "1\nBob\t7\t1\nAnn_Lee\t1\tBob\t1\n")
    write(tmp_path / "people.txt", "1\nCid\t3\n")
    assert paths(read_lfw(tmp_path)) == [
        "Bob/Bob_0001.jpg",
        "Bob/Bob_0007.jpg",
        "Ann_Lee/Ann_Lee_0001.jpg",
        "Cid/Cid_0003.jpg",
    ]
    assert paths(read_lfw(tmp_path / "people.txt")) == ["Cid/Cid_0003.jpg"]
    (tmp_path / "people.txt").rename(tmp_path / "peopleDevTest.txt")
    assert paths(read_manifest(tmp_path / "peopleDevTest.txt", "lfw")) == ["Cid/Cid_0003.jpg"]


def test_pairs_as_paths(tmp_path: Path) -> None:
    images(tmp_path, "Ann_Lee_0001", "Bob_0001", "Bob_0002", "Cid_0010")
    images(tmp_path, "Ann_Lee_0002", suffix=".PNG")
    write(tmp_path / "pairs.txt", PAIRS)
    pairs = read_pairs(tmp_path)
    assert pairs == (
        Pair("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0004.jpg", True),
        Pair("Ann_Lee/Ann_Lee_0002.PNG", "Bob/Bob_0001.jpg", False),
        Pair("Bob/Bob_0001.jpg", "Bob/Bob_0002.jpg", True),
        Pair("Cid/Cid_0010.jpg", "Ann_Lee/Ann_Lee_0001.jpg", False),
    )
    assert read_pairs(tmp_path / "pairs.txt") == pairs
    listed = {path for pair in pairs for path in (pair.first, pair.second)}
    assert listed - set(paths(read_lfw(tmp_path))) == {"Ann_Lee/Ann_Lee_0004.jpg"}
    with pytest.raises(RequestError, match=r"got .*none\.txt: it is missing"):
        read_pairs(tmp_path / "none.txt")


def test_blank_lines_spaces_and_windows_line_ends(tmp_path: Path) -> None:
    images(tmp_path, "Ann Lee_0001", "Bob_0001", "Bob_0002")
    write(tmp_path / "pairs.txt", "1 1\r\nBob 1 2\r\n\r\nAnn Lee\t1\tBob\t1\r\n", "utf-8-sig")
    assert [pair.same for pair in read_pairs(tmp_path)] == [True, False]
    assert read_lfw(tmp_path).identities == ("Bob", "Ann Lee")


def test_names_of_every_script_and_length(tmp_path: Path) -> None:
    images(tmp_path, "夏目_漱石_0001", "Żółw_0001", "محمد_0001")
    write(tmp_path / "people.txt", f"4\n夏目_漱石\t1\nŻółw\t1\nمحمد\t1\n{'長' * 400}\t2\n")
    manifest = read_lfw(tmp_path)
    assert manifest.identities == ("夏目_漱石", "Żółw", "محمد")
    assert manifest.left_out == {"image not on disk": 2}


WRONG = {
    "a pair too few": ("pairs.txt", "2\t1\nA\t1\t2\nA\t1\tB\t1\nA\t1\t3\n", r"2 pairs of two people .*got 1"),
    "a pair too many": ("pairs.txt", "1\nA\t1\t2\nA\t1\t3\nA\t1\tB\t1\n", r"1 pairs of one person .*got 2"),
    "header only": ("pairs.txt", "10\t300\n", r"3000 pairs of one person \(10 x 300\).*got 0: .* cut off"),
    "no header": ("pairs.txt", "A\t1\t2\n", "line 1, must have the number of folds .* got 3 columns"),
    "empty": ("pairs.txt", "", "line 1, must have the number of folds .* got 0 columns"),
    "a word": ("pairs.txt", "ten\t300\n", "line 1, must have numbers .* got 'ten'"),
    "no number": ("pairs.txt", "1\nA\tone\t2\n", "line 2, must have numbers .* got 'one'"),
    "image 0": ("pairs.txt", "1\nA\t0\t2\n", "line 2, must have numbers from 1 .* got '0'"),
    "huge": ("pairs.txt", "1\nA\t1\t" + "9" * 5000 + "\n", "line 2, must have numbers from 1"),
    "other digits": ("pairs.txt", "1\nA\t1\t٣\n", "line 2, must have numbers from 1"),
    "two columns": ("pairs.txt", "1\n\nA\t1\n", "line 3, must have name, i, j or .* got 2 columns"),
    "five columns": ("pairs.txt", "1\nA\t1\t2\t3\t4\n", "line 2, must have name, i, j or .* got 5 columns"),
    "no two people": ("pairs.txt", "1\nA\t1\tA\t2\n", "line 2, must have two people .* got 'A' twice"),
    "slash": ("pairs.txt", "1\nA/B\t1\t2\n", "line 2, must have names of folders .* got 'A/B'"),
    "out of the folder": ("people.txt", "1\n..\t1\n", r"line 2, must have names of folders .* got '\.\.'"),
    "a person too few": ("people.txt", "1\n3\nA\t1\nB\t1\n", "3 people in fold 1.* got 2"),
    "a person too many": ("people.txt", "2\n1\nA\t1\n1\nB\t1\nC\t1\n", "1 people in fold 2.* got 2"),
    "without folds": ("people.txt", "3\nA\t1\n", "3 people in fold 1.* got 1"),
    "a fold too few": ("people.txt", "2\n1\nA\t1\n", "2 folds, .* got 1"),
    "no count": ("people.txt", "A\t1\n", "line 1, must have name and number of images after a count"),
    "no people": ("people.txt", "", "must hold 1 folds, .* got 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_list_is_refused_with_both_numbers_or_the_line(name: str, tmp_path: Path) -> None:
    file, text, message = WRONG[name]
    images(tmp_path, "A_0001", "A_0002", "B_0001")
    write(tmp_path / file, text)
    with pytest.raises(RequestError, match=rf"LFW list .*{file}.*{message}"):
        read_manifest(tmp_path)


def test_a_list_without_images_and_a_folder_without_lists(tmp_path: Path) -> None:
    images(tmp_path, "Dan_0001")
    with pytest.raises(RequestError, match=r"must be a folder with pairs\.txt or people\.txt"):
        read_manifest(tmp_path, "lfw")
    write(tmp_path / "people.txt", PEOPLE)
    with pytest.raises(RequestError, match=r"with none of 16: put the list beside the people's folders"):
        read_manifest(tmp_path)
    assert read_manifest(tmp_path, "folders").identities == ("Dan",)
    write(tmp_path / "people.txt", "1\nZoë\t1\n", "latin-1")
    with pytest.raises(RequestError, match="must be UTF-8"):
        read_manifest(tmp_path)


def test_what_is_recognised(tmp_path: Path) -> None:
    assert not is_lfw(tmp_path)
    assert is_lfw(write(tmp_path / "a" / "people.txt", PEOPLE))
    assert is_lfw(tmp_path / "a")
    assert not is_lfw(write(tmp_path / "b" / "notes.txt", ""))
    (tmp_path / "c" / "pairs.txt").mkdir(parents=True)
    assert not is_lfw(tmp_path / "c")

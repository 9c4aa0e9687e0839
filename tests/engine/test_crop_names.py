"""Names of folders and files out of names from anywhere."""

import unicodedata

import pytest

from leamfast.datasets.entry import Entry
from leamfast.engine.crop_names import MAX_BYTES, Names, crop_names, folder_names, safe_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ann Smith", "Ann Smith"),
        ("夏目漱石", "夏目漱石"),
        ("Żółw", "Żółw"),
        ("Z\u0307o\u0301łw", "Żółw"),  # composed
        ("AC/DC", "AC_DC"),
        ("..", "_"),
        (".", "_"),
        ("", "_"),
        ("  ", "_"),
        ("../../etc/passwd", "_._.._etc_passwd"),
        ("..\\..\\x", "_._.._x"),
        (".hidden", "_hidden"),
        ("-rf", "_rf"),
        ("~root", "_root"),
        ("C:\\a", "C__a"),
        ("a\nb\tc\x00d\x1b[2J", "a_b_c_d_[2J"),
        ("abc\u202egpj.exe", "abc_gpj.exe"),  # what turns the direction of text
        ("a\u200bb", "a_b"),
        ("a\u3000b\xa0c", "a b c"),
        ("bob, b.", "bob, b"),
        (" x ", "x"),
        ('<>"|?*', "______"),
        ("\ud800", "_"),
    ],
)
def test_a_safe_name(text, name):
    assert safe_name(text) == name
    assert safe_name(name) == name


@pytest.mark.parametrize("letter", ["a", "é", "長", "😀", "e\u0301"])
def test_names_are_short_in_bytes(letter):
    name = safe_name(letter * 400)
    assert MAX_BYTES - 4 < len(name.encode()) <= MAX_BYTES
    assert unicodedata.is_normalized("NFC", name)
    assert set(name) <= set(unicodedata.normalize("NFC", letter))
    many = Names()
    given = {many.give(letter * (400 + n)) for n in range(1200)}
    assert len(given) == 1200
    assert max(len(f"{name}.png".encode()) for name in given) <= 143


def test_names_that_a_file_system_may_not_tell_apart_get_numbers():
    names = Names()
    wanted = ["Ann", "ann", "ANN", "straße", "STRASSE", "ann-2", "ﬁn", "fin", "é", "E\u0301"]
    given = [names.give(name) for name in wanted]
    assert given == ["Ann", "ann-2", "ANN-3", "straße", "STRASSE-2", "ann-2-2", "ﬁn", "fin-2", "é", "É-2"]


def test_a_name_that_looks_like_a_number_of_another_is_passed_over():
    names = Names()
    assert [names.give(name) for name in ("a-2", "a", "a", "a", "A-3")] == ["a-2", "a", "a-3", "a-4", "A-3-2"]


def test_many_equal_names_take_no_long_time():
    names = Names()
    assert len({names.give("/" * (1 + n % 3)) for n in range(30_000)}) == 30_000


def test_folders_leave_the_names_of_our_files_alone():
    assert folder_names(["manifest.csv", "FAILURES.csv", ".align", "x/y", "x_y"]) == {
        "manifest.csv": "manifest.csv-2",
        "FAILURES.csv": "FAILURES.csv-2",
        ".align": "_align",
        "x/y": "x_y",
        "x_y": "x_y-2",
    }


def test_crops_are_called_like_their_files():
    entries = [
        Entry("id/a.jpg", "x"),
        Entry("id/b/a.PNG", "x"),
        Entry("id/J. R. R.jpeg", "x"),
        Entry("shard.tar", "x", inside="000/17.jpg"),
        Entry("train.rec", "x", inside="17"),
        Entry("id/v1.5", "x"),
        Entry("id/.png", "x"),
        Entry("id/c.jpg", "x", rect=(0, 0, 1, 1)),
        Entry("id/c.jpg", "x", rect=(1, 1, 2, 2)),
    ]
    assert crop_names(entries) == [
        "a.png", "a-2.png", "J. R. R.png", "17.png", "17-2.png", "v1.5.png", "_png.png", "c.png", "c-2.png",
    ]  # fmt: skip

from pathlib import Path

import pytest

from leamfast import RequestError
from leamfast.store.settings import differences, read_settings, write_settings


def test_round_trip(tmp_path):
    path = tmp_path / "run.toml"
    write_settings(
        path, {"data": Path("a"), "workers": None, "model": ("demo",)}, {"models": {"m": {"size": 3}}}
    )
    content = read_settings(path)
    assert content["request"] == {"data": "a", "model": ["demo"]}
    assert content["frozen"] == {"models": {"m": {"size": 3}}}


def test_differences_are_named():
    old = {"seed": 0, "models": {"m": {"layers": ["a"], "size": 1}}, "gone": 1, "none": None}
    new = {"seed": 1, "models": {"m": {"layers": ("a",), "size": 2}}, "come": 2}
    assert differences(old, new) == [
        "seed: 0 -> 1",
        "models.m.size: 1 -> 2",
        "gone: 1 -> (none)",
        "come: (none) -> 2",
    ]
    assert differences(old, old) == []


@pytest.mark.parametrize(("text", "words"), [("a = ", "not valid TOML"), ('schema = "x"', "schema 'x'")])
def test_bad_files(tmp_path, text, words):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(RequestError, match=words):
        read_settings(path)

"""The request of a finished run: what it asked, where its data is, and what a damaged file says."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tomli_w

from leamfast import RequestError
from leamfast.engine.batch_run import BatchRequest
from leamfast.engine.run_request import read_options, request_of
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import read_settings, write_settings


def folder_with(root: Path, request: dict) -> RunFolder:
    root.mkdir(exist_ok=True)
    (root / "run.toml").write_text(tomli_w.dumps({"schema": "leamfast/1", "request": request}))
    return RunFolder(root)


def test_the_request_of_a_run_is_the_one_that_was_asked(faces, finished_run):
    assert request_of(RunFolder(finished_run)) == BatchRequest(
        data=faces, out=finished_run, model=("demo=random:0",), align="none", shard_images=12, batch_size=5,
        threads=1,
    )  # fmt: skip


def test_every_option_comes_back_but_for_trust_and_resume(tmp_path):
    (tmp_path / "data").mkdir()
    asked = BatchRequest(
        data=tmp_path / "data", out=tmp_path / "then", model=("demo", "a:=demo"), format="folders",
        limit_identities=3, images_per_identity=2, min_images=2, layers=("conv1", "a:layer2.0"),
        align="paper", detector="dlib", faces="largest", parser="none", target="similarity",
        shard_timeout=2, threads=1, device="cuda", seed=7, trust_code=True, resume=True,
        preprocessing={"*": {"size": 112, "channels": "rgb", "mean": [0.5] * 3, "std": [0.5] * 3}},
    )  # fmt: skip
    now = tmp_path / "now"
    now.mkdir()
    write_settings(now / "run.toml", asdict(asked), {})
    assert request_of(RunFolder(now)) == replace(asked, out=now, trust_code=False, resume=False)


def test_data_that_was_named_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "work/photos").mkdir(parents=True)
    folder = folder_with(tmp_path / "out", {"data": "photos", "out": "../out", "model": ["demo"]})
    monkeypatch.chdir(tmp_path / "work")
    assert request_of(folder).data == Path("photos")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=r"run it from where `leamfast batch` was run, or give --data"):
        request_of(folder)
    given = request_of(folder, tmp_path / "work/photos")
    assert (given.data, given.out) == (tmp_path / "work/photos", tmp_path / "out")
    with pytest.raises(RequestError, match=r"data set .*none .* is not there: give its path with --data"):
        request_of(folder, tmp_path / "none")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, r"run.toml is not the run.toml of a run: \[request\] has no data"),
        ({"data": "."}, r"\[request\] has no model"),
        ({"data": ".", "model": "demo"}, r"model must be tuple\[str, ...\], got 'demo'"),
        ({"data": ".", "model": [1]}, r"model must be tuple\[str, ...\], got \[1\]"),
        ({"data": ".", "model": ["demo"], "seed": True}, r"seed must be int, got True"),
        ({"data": 3, "model": ["demo"]}, r"data must be Path, got 3"),
        ({"data": ".", "model": ["demo"], "colour": 1}, r"unknown option 'colour'"),
        (
            {"data": ".", "model": ["demo"], "align": "best"},
            r"run.toml: \[request\] align must be one of arcface",
        ),
        (
            {"data": ".", "model": ["demo"], "target": "x"},
            r"run.toml: \[request\] target must be one of loss, ",
        ),
        (
            {"data": ".", "model": ["demo"], "references": ""},
            r"run.toml: \[request\] references must be one of ",
        ),
        (
            {"data": ".", "model": ["demo"], "max_references": 0},
            r"\[request\] max_references must be at least 1",
        ),
        ({"data": ".", "model": ["demo"], "seed": -1}, r"\[request\] seed must not be negative, got -1"),
        ({"data": ".", "model": ["demo"], "shard_timeout": 0.0}, r"shard_timeout must be above 0 seconds"),
    ],
)
def test_a_request_that_is_not_whole_or_of_other_types(tmp_path, request_, words):
    with pytest.raises(RequestError, match=words):
        request_of(folder_with(tmp_path / "out", request_))


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(RequestError, match=r"run.toml cannot be read: No such file"):
        request_of(RunFolder(tmp_path))


HALF = {"size": 112, "channels": "rgb", "mean": [0.5] * 3, "std": [0.5] * 3}


def test_options_are_as_toml_has_them_with_the_models_own(tmp_path, finished_run):
    file = tmp_path / "run.toml"
    shutil.copy(finished_run / "run.toml", file)
    assert read_options(file)["model"] == ["demo=random:0"]
    assert set(read_options(file)) == set(read_settings(file)["request"]) - {"resume", "trust_code"}
    other = {**HALF, "size": 160}
    content = {"request": {"seed": 2, "preprocessing": {"a": HALF, "b": HALF}}, "models": {"b": other}}
    file.write_text(tomli_w.dumps(content))
    assert read_options(file) == {"seed": 2, "preprocessing": {"a": HALF, "b": other}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[models]\none = 3",
            r"run.toml: \[models\] one must be a table of size, channels, mean and std, got 3",
        ),
        (
            "[models.one]\nsize = 2",
            r"run.toml: \[models.one\] preprocessing must give exactly .*channels is miss",
        ),
        ("[request.preprocessing]\none = 'x'", r"run.toml: \[request.preprocessing\] one must be a table"),
        (
            tomli_w.dumps({"models": {"one": {**HALF, "std": [0, 0, 0]}}}),
            r"run.toml: \[models.one\] preprocessing.std must be positive",
        ),
        (
            tomli_w.dumps({"request": {"preprocessing": {"*": {**HALF, "size": "big"}}}}),
            r"run.toml: \[request.preprocessing.\*\] preprocessing.size must be a whole number",
        ),
    ],
)
def test_preprocessing_that_is_none(tmp_path, text, words):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(RequestError, match=words):
        read_options(file)


def test_no_run_toml_says_that_code_is_to_be_trusted(tmp_path):
    folder = folder_with(tmp_path / "out", {"data": ".", "model": ["mine:net"], "trust_code": True})
    assert read_options(folder.settings) == {"data": ".", "model": ["mine:net"]}
    assert request_of(folder).trust_code is False

"""`leamfast ingest`: what it writes is read as the same entries, and what it says."""

import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leamfast.cli.main import app
from leamfast.datasets.entry import Entry
from leamfast.datasets.formats import read_manifest
from leamfast.datasets.ingest import manifest_bytes
from leamfast.datasets.manifest import Manifest
from leamfast.errors import RequestError

KINDS = ("manifest.csv", "manifest.parquet")
IMDB = "name,index,image,rect,height width,url\n"


def invoke(*args: object):
    return CliRunner().invoke(app, ["ingest", *map(str, args)])


def run_json(*args: object) -> dict:
    result = invoke(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*args: object) -> str:
    result = invoke(*args)
    assert isinstance(result.exception, RequestError), result.output
    return str(result.exception)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    return file


def placed(manifest: Manifest) -> list[tuple]:
    """The entries with the places of their files."""
    return [
        (
            os.path.normpath(manifest.resolve(entry)),
            str(manifest.resolve_label(entry)),
            entry.identity,
            entry.metadata,
            (entry.inside, entry.spans, entry.rect),
        )
        for entry in manifest.entries
    ]


def folders(root: Path) -> Path:
    return touch(
        root, "ann/1.jpg", "ann/2.jpg", "bob, b./x 1.png", "Żółw/夏目\n漱石\r.jpg", f"{'長' * 80}/a.jpg"
    )


def table(root: Path) -> Path:
    text = (
        "path,identity,label,age group,inside,spans,rect\n"
        'a.rec,AC/DC,m/1.png,"3""0",7,8:100 200:5,\n'
        "a.rec,../x,,,8,300:1,\n"
        "./b.jpg,AC/DC,,31,,,0 1 20 30\n"
        "/elsewhere/c.jpg,Zoë,/elsewhere/m.png,-1,,,\n"
        "d/../e.jpg,Zoë,,0,,,\n"
    )
    return write(root / "list.csv", text)


def lfw(root: Path) -> Path:
    touch(root, "Ann/Ann_0001.jpg", "Bob/Bob_0002.jpg")
    write(root / "pairs.txt", "1\nBob\t1\t2\nAnn\t1\tBob\t2\n")
    return root


def imdbface(root: Path) -> Path:
    touch(root, "Ann/1.jpg")
    return write(root / "list.csv", IMDB + "Ann,0,1.jpg,1 2 3 4,9 9,http://x\nBob,0,2.jpg,1 2 3 4,9 9,\n")


DATA = {"folders": folders, "manifest": table, "lfw": lfw, "imdbface": imdbface}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["data", ".", "data/ann", "other/deep"])
@pytest.mark.parametrize("format", DATA)
def test_reading_back_gives_the_same_entries(format: str, place: str, kind: str, tmp_path: Path) -> None:
    if kind.endswith("parquet"):
        pytest.importorskip("pyarrow")
    data = DATA[format](tmp_path / "data")
    before = read_manifest(data)
    out = tmp_path / place / kind
    report = run_json(data, "--out", out)
    after = read_manifest(out)
    assert placed(after) == placed(before)
    assert after.columns == before.columns
    assert report == {
        "out": str(out),
        "format": format,
        "images": len(before.entries),
        "identities": len(before.identities),
        "ignored": before.ignored,
        "left_out": before.left_out,
    }
    below = [
        entry
        for entry in before.entries
        if os.path.normpath(before.resolve(entry)).startswith(str(out.parent))
    ]
    assert [not os.path.isabs(entry.path) for entry in after.entries].count(True) == len(below)
    if place == "data":
        assert after.sha256() == before.sha256()
        assert [entry.name for entry in after.entries] == [entry.name for entry in before.entries]
    if place == ".":
        names = [entry.name.removeprefix("data/") for entry in after.entries]
        assert names == [entry.name for entry in before.entries]


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    data = table(tmp_path)
    one, two = (tmp_path / "out" / kind for kind in KINDS)
    run_json(data, "--out", one)
    run_json(data, "--out", two)
    assert read_manifest(one) == read_manifest(two)


def test_relative_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "faces", "ann/1.jpg")
    monkeypatch.chdir(tmp_path)
    run_json("faces", "--out", "list.csv")
    assert (tmp_path / "list.csv").read_text() == "path,identity\nfaces/ann/1.jpg,ann\n"
    monkeypatch.chdir(tmp_path / "faces")
    run_json(".", "--out", "list.csv")
    assert (tmp_path / "faces" / "list.csv").read_text() == "path,identity\nann/1.jpg,ann\n"


def test_a_folder_is_its_manifest_from_then_on(tmp_path: Path) -> None:
    data = touch(tmp_path, "ann/1.jpg", "bob/1.jpg", "bob/2.jpg")
    run_json(data, "--out", data / "manifest.csv", "--min-images", 2)
    assert read_manifest(data).identities == ("bob",)
    assert run_json(data, "--out", tmp_path / "all.csv", "--format", "folders")["identities"] == 2


def test_limits_and_what_people_are_told(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", *(f"p{i}/{j}.jpg" for i in range(9) for j in range(i + 1)), "notes.txt")
    options = ("--limit-identities", 3, "--images-per-identity", 2, "--min-images", 2, "--seed", 5)
    result = invoke(data, "--out", tmp_path / "a.csv", *options)
    assert result.exit_code == 0
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0] == f"6 images of 3 people (folders), listed in {tmp_path / 'a.csv'}"
    assert lines[1] == "1 files without an image's suffix are ignored"
    assert lines[2] == "left out: 1 x image of an identity with fewer than 2 images (--min-images)"
    assert len(lines) == 5
    run_json(data, "--out", tmp_path / "b.csv", *options)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "ann/1.jpg")
    out = write(tmp_path / "list.csv", "mine")
    assert "--out must be a new file" in refused(data, "--out", out)
    assert out.read_text() == "mine"
    run_json(data, "--out", out, "--force")
    assert read_manifest(out).identities == ("ann",)
    (tmp_path / "folder.csv").mkdir()
    assert "which exists: give another name" in refused(data, "--out", tmp_path / "folder.csv", "--force")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "folder.csv", "list.csv"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = touch(tmp_path / "d", "ann/1.jpg")
    out = write(tmp_path / "list.csv", "mine")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = invoke(data, "--out", out, "--force")
    assert str(result.exception).endswith(f"no room for {out} (32 bytes): free some and try again")
    assert out.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "list.csv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "x.txt"], r"--out must end in .csv or .parquet, got x.txt"),
        (["--out", "x.csv", "--format", "zip"], "--format must be one of auto, manifest,"),
        (["--out", "x.csv", "--limit-identities", "0"], "--limit-identities must be at least 1, got 0"),
        (["--out", "x.csv", "--min-images", "2"], "--min-images must leave an identity, got 2"),
    ],
)
def test_requests_that_are_wrong(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(touch(tmp_path, "d/ann/1.jpg"))
    assert message in refused("d", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(
    ("entry", "columns", "message"),
    [
        (Entry(" ann/1.jpg", "ann"), (), "must not begin or end with a space .* got the path ' ann/1.jpg'"),
        (Entry("1.jpg", "ann "), (), "got the identity 'ann ' of '1.jpg': rename it"),
        (Entry("1.jpg", "ann", None, {"age": "\0"}), ("age",), "hold a NUL byte, got the age"),
        (Entry("1.jpg", "ann", None, {"a/b": "1"}), ("a/b",), "has the column name 'a/b'"),
        (Entry("1.jpg", "ann", None, {"sha1": "1"}), ("sha1",), "which results use themselves"),
        (Entry("1.jpg", "ann", None, {"rect": "1"}), ("rect",), "metadata columns of other names .*got rect"),
    ],
)
def test_what_could_not_be_read_again_is_refused(
    entry: Entry, columns: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=message):
        manifest_bytes(Manifest(tmp_path, (entry,), columns), tmp_path / "list.csv")


def test_parquet_without_pyarrow_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs the package pyarrow" in refused(tmp_path / "absent", "--out", tmp_path / "list.parquet")


def test_it_explains_itself() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert "--images-per-identity" in result.stdout


def test_batch_takes_the_same_options(faces: Path, tmp_path: Path) -> None:
    options = ["--limit-identities", 2, "--images-per-identity", 3, "--seed", 5]
    listed = run_json(faces, "--out", tmp_path / "list.csv", *options)
    assert (listed["images"], listed["identities"]) == (6, 2)
    model = ["--model", "demo=random:0", "--align", "none", "--layers", "conv1", "--threads", 1]
    arguments = [
        "batch",
        faces,
        "--out",
        tmp_path / "run",
        *model,
        *options,
        "--format",
        "manifest",
        "--json",
    ]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["images"], report["identities"], report["failures"]) == (6, 2, 0)
    assert "left out: " in result.stderr
    assert "(--limit-identities)" in result.stderr
    settings = (tmp_path / "run" / "run.toml").read_text()
    assert 'format = "manifest"' in settings
    assert "limit_identities = 2" in settings

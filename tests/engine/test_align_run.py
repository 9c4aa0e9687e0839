"""`run_align` on images whose faces need no finding: what it writes, killed or not, and what it refuses."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import leamfast.engine.align as align
import leamfast.engine.align_run as align_run
from leamfast.datasets.formats import read_manifest
from leamfast.engine.align_run import AlignRequest, run_align
from leamfast.engine.crop_names import crop_names
from leamfast.engine.crops import make_crops
from leamfast.engine.plan import plan_shards
from leamfast.errors import RequestError
from leamfast.store.atomic import StorageFullError
from tests.engine.template_detector import template_finding

ROOT = Path(__file__).resolve().parents[2]

# Kills itself at the n-th fsync. Worker processes run this file too, so that they find faces likewise.
SCRIPT = """
import itertools, os, signal, sys
from pathlib import Path
import leamfast.engine.align as align
import leamfast.engine.align_run as align_run
from leamfast.engine.align_run import AlignRequest, run_align
from tests.engine.template_detector import template_finding

align_run.code_sha256 = lambda: "the same whoever edits meanwhile"
data, out, at, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
align.load_finding = template_finding
real, calls = os.fsync, itertools.count(1)

def fsync(descriptor):
    if next(calls) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)

os.fsync = fsync
if __name__ == "__main__":
    run_align(AlignRequest(data, out, f"retinaface={__file__}", threads=1, workers=workers, resume=True))
    print(next(calls) - 1)
"""


@pytest.fixture(autouse=True)
def _template(monkeypatch):
    monkeypatch.setattr(align, "load_finding", template_finding)


@pytest.fixture
def request_of(tmp_path) -> Callable[..., AlignRequest]:
    (tmp_path / "weights").write_text("none")

    def make(data: Path, **options: object) -> AlignRequest:
        asked = {"out": tmp_path / "out", "detector": f"retinaface={tmp_path / 'weights'}", "threads": 1}
        return AlignRequest(data, **{**asked, **options})

    return make


def picture(path: Path, seed: int = 0, side: int = 150) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def tree(out: Path) -> dict[str, bytes]:
    """All files but the lock and run.toml, in which the request stands."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {n: f.read_bytes() for n, f in files.items() if Path(n).name not in (".lock", "run.toml")}


def quiet(text: str) -> None:
    pass


def refused(request: AlignRequest) -> str:
    with pytest.raises(RequestError) as caught:
        run_align(request, quiet)
    return str(caught.value)


def test_crops_are_those_of_make_crops_and_the_manifest_lists_them(faces, request_of):
    request = request_of(faces, size=96)
    report = run_align(request, quiet)
    assert (report.images, report.identities, report.failures, report.shards) == (48, 12, 0, 3)
    data = read_manifest(faces)
    found = read_manifest(request.out)
    assert found.columns == ("source", *data.columns)
    assert [entry.metadata["source"] for entry in found.entries] == [entry.name for entry in data.entries]
    finding = template_finding()
    (shard,) = plan_shards(data, 10_000)
    expected = make_crops(shard, data.root, [96], finding, None, 1).images[96]
    for entry, before, pixels in zip(found.entries, data.entries, expected, strict=True):
        assert entry.identity == before.identity
        assert {**entry.metadata, "source": ""} == {**before.metadata, "source": ""}
        image = Image.open(found.resolve(entry))
        assert (image.format, image.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.array(image), pixels)


def test_the_data_set_s_masks_stay_behind_with_a_note(faces, request_of):
    said: list[str] = []
    run_align(request_of(faces), said.append)
    assert "region masks of DATA belong to its images and are not carried over to the crops" in said


def test_workers_and_order_change_nothing(faces, tmp_path, request_of):
    run_align(request_of(faces), quiet)
    done = _start(faces, tmp_path / "two", workers=2)
    _, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    ours, theirs = tree(tmp_path / "out"), tree(tmp_path / "two")
    # Records name the run, whose detector is another file here.
    assert {n: b for n, b in ours.items() if ".align" not in n} == {
        n: b for n, b in theirs.items() if ".align" not in n
    }


def test_a_person_of_many_images_lies_in_several_shards(faces, tmp_path, request_of):
    data = tmp_path / "flat"
    data.mkdir()
    for number, file in enumerate(sorted(faces.glob("id*/*.jpg")) or sorted(faces.glob("id*/*.png"))):
        for name in (f"{number % 40}{file.suffix}", f"{number % 40}{file.suffix.upper()}"):
            if not (data / name).exists():
                shutil.copy(file, data / name)
                break
    manifest = read_manifest(data)
    assert len(manifest.identities) == 1
    report = run_align(request_of(data), note=lambda text: None)
    assert report.shards == 3
    assert report.images == len(manifest.entries) == 48
    found = rows(report.out / "manifest.csv")
    assert [row["source"] for row in found] == [entry.name for entry in manifest.entries]
    assert [row["path"] for row in found] == [f"flat/{name}" for name in crop_names(manifest.entries)]
    assert len({row["path"] for row in found}) == 48


def test_a_folder_in_which_the_work_was_stopped_is_no_data_set(faces, request_of):
    report = run_align(request_of(faces), note=lambda text: None)
    assert len(read_manifest(report.out).entries) == 48
    (report.out / "manifest.csv").unlink()
    with pytest.raises(RequestError, match="DATA must be whole, .* was stopped: finish it with --resume"):
        read_manifest(report.out)


def test_what_has_no_crop_is_listed_with_its_reason(tmp_path, request_of):
    data = tmp_path / "data"
    picture(data / "ann/1.png", 1)
    picture(data / "ann/2.png", 1)
    picture(data / "ann/3.png", 3, side=40)
    (data / "bob").mkdir()
    (data / "bob/1.jpg").write_bytes(b"nothing")
    said: list[str] = []
    report = run_align(request_of(data), said.append)
    assert (report.images, report.identities, report.failures) == (1, 1, 3)
    assert report.left_out == {"duplicate": 1, "detect": 1, "decode": 1}
    out = tmp_path / "out"
    assert [row["source"] for row in rows(out / "manifest.csv")] == ["ann/1.png"]
    failures = {
        row["path"]: (row["identity"], row["stage"], row["reason"]) for row in rows(out / "failures.csv")
    }
    assert failures.pop("ann/3.png")[2].startswith("face is too small: its eyes are ")
    assert failures == {
        "ann/2.png": ("ann", "duplicate", "same picture as ann/1.png"),
        "bob/1.jpg": ("bob", "decode", "not an image of a known format, or its header is damaged"),
    }
    assert not (out / "bob").exists()


def test_no_crop_at_all_gives_an_empty_manifest(tmp_path, request_of):
    picture(tmp_path / "data/ann/1.png", side=40)
    report = run_align(request_of(tmp_path / "data"), quiet)
    assert (report.images, report.identities, report.failures, report.failed_shards) == (0, 0, 1, 0)
    assert (tmp_path / "out/manifest.csv").read_bytes() == b"path,identity,source\r\n"
    with pytest.raises(RequestError, match="manifest must list images, got .* with none"):
        read_manifest(tmp_path / "out")


HOSTILE = [
    *(
        "..x/../y",
        "-rf ~",
        "a\nb",
        "CON",
        "ann",
        "Ann",
        "ANN",
        "長" * 300,
        "長" * 299,
        "=1+1",
        "é",
        "e\u0301",
    ),
    *("manifest.csv", "failures.csv", ".align", "\u202egnp.a"),
]


def test_names_from_untrusted_data(tmp_path, request_of):
    data = tmp_path / "data"
    lines = [["path", "identity", "source", "age"]]
    for number, name in enumerate(HOSTILE):
        picture(data / f"{number}.png", number)
        lines.append([f"{number}.png", name, f"from {name}", str(number)])
    with (data / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\r\n").writerows(lines)
    said: list[str] = []
    report = run_align(request_of(data), said.append)
    assert (report.images, report.failures) == (len(HOSTILE), 0)
    assert "the column source of DATA is called source_2 in manifest.csv" in said
    out = tmp_path / "out"
    found = read_manifest(out)
    assert found.columns == ("source", "source_2", "age")
    assert [entry.identity for entry in found.entries] == HOSTILE
    assert [entry.metadata["source_2"] for entry in found.entries] == [f"from {name}" for name in HOSTILE]
    assert [entry.metadata["source"] for entry in found.entries] == [f"{n}.png" for n in range(len(HOSTILE))]
    folders = [entry.path.partition("/")[0] for entry in found.entries]
    assert len({folder.casefold() for folder in folders}) == len(HOSTILE)
    for entry, folder in zip(found.entries, folders, strict=True):
        file = found.resolve(entry)
        assert file.is_file()
        assert file.resolve().parent.parent == out.resolve()
        assert folder[0] not in ".-~"
        assert len(folder.encode()) < 143
        assert folder.isprintable()
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out", "weights"}


def test_what_the_manifest_could_not_hold_is_refused_before_any_work(tmp_path, request_of):
    picture(tmp_path / "data/ ann/1.png")
    said = refused(request_of(tmp_path / "data"))
    assert "must not begin or end with a space" in said
    assert "' ann" in said
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused(tmp_path, faces, request_of):
    request = request_of(faces)
    request.out.mkdir()
    (request.out / "mine.png").touch()
    assert f"folder {request.out} is not empty: choose another --out" in refused(request)
    assert "is not empty" in refused(request_of(faces, resume=True))
    assert "cannot be made: Not a directory" in refused(request_of(faces, out=tmp_path / "weights/x"))
    assert "--out must lie outside of DATA" in refused(request_of(faces, out=faces / "crops"))
    assert not (faces / "crops").exists()
    assert {path.name for path in request.out.iterdir()} == {"mine.png"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"align": "none"}, "--align must be one of arcface, paper, got 'none'"),
        ({"align": "paper"}, "--align paper needs the 68 landmarks of --detector dlib"),
        ({"faces": "all"}, "--faces must be one of one, largest, got 'all'"),
        ({"size": 0}, "--size must be 1 to 4096 pixels, got 0"),
        ({"size": 5000}, "--size must be 1 to 4096 pixels, got 5000"),
        ({"threads": 0}, "--threads must be at least 1, got 0"),
        ({"workers": -1}, "--workers must not be negative, got -1"),
        ({"min_images": 0}, "--min-images must be at least 1, got 0"),
        ({"seed": -1}, "--seed must not be negative, got -1"),
        ({"device": "gpu"}, "--device must be cpu, cuda or cuda:N, got 'gpu'"),
        ({"detector": "mtcnn"}, "detector must be retinaface=FILE"),
        ({"format": "zip"}, "--format must be one of auto"),
    ],
)
def test_wrong_requests_leave_nothing_behind(faces, tmp_path, request_of, options, words):
    assert words in refused(request_of(faces, **options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 128}, "size: 112 -> 128"),
        ({"faces": "largest"}, "faces: one -> largest"),
        ({"threads": 2}, "threads: 1 -> 2"),
        ({"images_per_identity": 3}, "manifest: "),
        ({"detector": None}, "detector.weights: "),
    ],
)
def test_other_settings_are_refused_by_name(faces, tmp_path, request_of, options, words):
    request = request_of(faces)
    run_align(request, quiet)
    before = tree(request.out)
    (tmp_path / "other").write_text("others")
    if "detector" in options:
        options = {"detector": f"retinaface={tmp_path / 'other'}"}
    said = refused(request_of(faces, resume=True, **options))
    assert "was made with other settings (" in said
    assert words in said
    assert tree(request.out) == before
    assert "holds crops already: go on with --resume" in refused(request)


def test_a_finished_run_does_nothing_again_and_keeps_its_threads(faces, request_of):
    request = request_of(faces)
    run_align(request, quiet)
    before = tree(request.out)
    times = {path: path.stat().st_mtime_ns for path in request.out.rglob("*.png")}
    report = run_align(request_of(faces, resume=True, threads=None), quiet)
    assert (report.images, report.shards, report.skipped) == (48, 0, 3)
    assert tree(request.out) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize("damage", ["crop cut", "crop gone", "record cut", "record of another"])
def test_what_was_damaged_is_made_again(faces, request_of, damage):
    request = request_of(faces)
    run_align(request, quiet)
    before = tree(request.out)
    record = request.out / ".align/shards/shard-000001.json"
    content = json.loads(record.read_text())
    crop = request.out / content["crops"][2]["path"]
    if damage == "crop cut":
        crop.write_bytes(crop.read_bytes()[:-9])
    elif damage == "crop gone":
        crop.unlink()
    elif damage == "record cut":
        record.write_bytes(record.read_bytes()[:-9])
    else:
        shutil.copy(request.out / ".align/shards/shard-000000.json", record)
    said: list[str] = []
    report = run_align(request_of(faces, resume=True), said.append)
    assert (report.images, report.shards, report.skipped) == (48, 1, 2)
    assert any("its shard is computed again" in text for text in said)
    assert tree(request.out) == before


def test_a_shard_that_fails_is_listed_and_tried_again(faces, request_of, monkeypatch):
    request = request_of(faces)
    real = align.make_crops

    def fail(shard, *args):
        if shard.number == 1:
            raise RuntimeError("no luck")
        return real(shard, *args)

    monkeypatch.setattr(align, "make_crops", fail)
    report = run_align(request, quiet)
    assert (report.images, report.failures, report.failed_shards, report.interrupted) == (32, 16, 1, False)
    assert report.left_out == {"compute": 16}
    assert len(rows(request.out / "manifest.csv")) == 32
    failures = rows(request.out / "failures.csv")
    why = "RuntimeError: no luck; and so does each of its images alone"
    assert {(row["stage"], row["reason"]) for row in failures} == {("compute", why)}
    monkeypatch.setattr(align, "make_crops", real)
    report = run_align(request_of(faces, resume=True), quiet)
    assert (report.images, report.failures, report.shards, report.skipped) == (48, 0, 1, 2)
    assert len(rows(request.out / "manifest.csv")) == 48
    assert rows(request.out / "failures.csv") == []


def test_a_full_disk_is_one_sentence(faces, request_of, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageFullError, match=r"no room for the crops of shard 0 \([0-9,]+ bytes\)"):
        run_align(request_of(faces), quiet)


# Killed


def _script(out: Path) -> Path:
    script = out.with_name("job.py")
    script.write_text(SCRIPT)
    return script


def _start(data: Path, out: Path, at: int = 0, workers: int = 0) -> subprocess.Popen:
    script = _script(out)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "bench"))}
    command = [sys.executable, script, data, out, str(at), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def _go_on(data: Path, out: Path) -> None:
    """What the script does, in this process, which need not import torch for it."""
    request = AlignRequest(data, out, f"retinaface={_script(out)}", threads=1, resume=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(align_run, "code_sha256", lambda: "the same whoever edits meanwhile")
        run_align(request, quiet)


@pytest.fixture(scope="module")
def uninterrupted(faces, tmp_path_factory) -> tuple[dict[str, bytes], int]:
    """All files of a run, and how many calls of fsync it took."""
    out = tmp_path_factory.mktemp("whole") / "out"
    process = _start(faces, out)
    said, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return tree(out), int(said)


# Of a shard with 16 crops of 4 people: the crops, their folders, the folder, and two for the record.
A_SHARD = 16 + 4 + 1 + 2


@pytest.mark.parametrize(
    ("at", "records"),
    [(1, 0), (2 + 7, 0), (2 + A_SHARD - 1, 0), (2 + A_SHARD, 1), (-1, 3)],
)
def test_killed_in_a_write(faces, tmp_path, uninterrupted, at, records):
    whole, calls = uninterrupted
    assert calls == 2 + 3 * A_SHARD + 4
    out = tmp_path / "out"
    process = _start(faces, out, at if at > 0 else calls + 1 + at)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (out / ".align/shards").glob("shard-*.json")}
    assert len(kept) == records
    assert (out / "manifest.csv").exists() == (at == -1)
    _go_on(faces, out)
    assert tree(out) == whole
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # finished shards are not made again


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_a_random_moment_with_workers(faces, tmp_path, uninterrupted, seed):
    out = tmp_path / "out"
    process = _start(faces, out, workers=2)
    while process.poll() is None and not list(out.glob("*/*.png")):
        time.sleep(0.002)
    time.sleep(random.Random(seed).random() * 0.02)
    process.kill()
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"it was finished before it could be killed: {err}"
    process = _start(faces, out, workers=seed)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert tree(out) == uninterrupted[0]

"""`leamfast align` as a user runs it, on real photos."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import leamfast.cli.align as align_command
from leamfast import open_results
from leamfast.cli.main import app, main
from leamfast.datasets.formats import read_manifest
from leamfast.engine.align_run import AlignReport
from leamfast.engine.crops import make_crops
from leamfast.engine.finding import load_finding
from leamfast.engine.plan import plan_shards

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "mobilenet0.25_Final.pth"


def invoke(*args: object):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def detector(shared_data) -> str:
    return f"retinaface={shared_data / WEIGHTS}"


@pytest.fixture(scope="module")
def photos(shared_data, tmp_path_factory) -> Path:
    """Nine photos of three people, one that holds several faces, and one without any."""
    folder = tmp_path_factory.mktemp("photos") / "data"
    for person in ("id03", "id06", "id08"):
        (folder / person).mkdir(parents=True)
        for file in sorted((shared_data / "photos" / person).iterdir()):
            (folder / person / file.name).symlink_to(file)
    for name in ("multi_couple.jpg", "none_logo.jpg"):
        (folder / "id08" / name).symlink_to(shared_data / "photos_bad" / name)
    return folder


@pytest.fixture(scope="module")
def aligned(photos, detector, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("aligned") / "out"
    done = invoke("align", photos, "--out", out, "--detector", detector, "--threads", 1, "--json")
    assert done.exit_code == 0, done.output
    return out, json.loads(done.stdout)


def test_the_report_says_what_was_done(aligned):
    out, report = aligned
    assert report.pop("seconds") > 0
    assert report.pop("images_per_second") > 0
    assert report == {
        "out": str(out),
        "images": 9,
        "identities": 3,
        "failures": 2,
        "left_out": {"detect": 2},
        "shards": 1,
        "skipped": 0,
        "failed_shards": 0,
        "interrupted": False,
    }


def test_crops_are_those_of_make_crops(aligned, photos, detector):
    out, _ = aligned
    (shard,) = plan_shards(read_manifest(photos), 100)
    crops = make_crops(shard, photos, [112], load_finding(detector, "arcface", "one", "cpu", 1), None, 1)
    found = read_manifest(out)
    assert [entry.metadata["source"] for entry in found.entries] == [row.entry.name for row in crops.rows]
    assert [entry.path for entry in found.entries][:2] == ["id03/img13.png", "id03/img14.png"]
    for entry, pixels in zip(found.entries, crops.images[112], strict=True):
        np.testing.assert_array_equal(np.array(Image.open(found.resolve(entry))), pixels)
    with (out / "failures.csv").open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ("id08/multi_couple.jpg", "id08", "detect", "2 faces found, exactly one is needed"),
        ("id08/none_logo.jpg", "id08", "detect", "no face found"),
    ]


def test_batch_on_crops_gives_what_batch_on_photos_gives(aligned, photos, detector, shared_data, tmp_path):
    out, _ = aligned
    model = f"mobilefacenet={shared_data / 'mobilefacenet.pt'}"
    options = ["--model", model, "--layers", "conv1.0", "--threads", 1]
    embeddings, maps = [], []
    for name, data, how in (
        ("photos", photos, ["--align", "arcface", "--detector", detector]),
        ("crops", out, ["--align", "none"]),
    ):
        done = invoke("batch", data, "--out", tmp_path / name, *options, *how)
        assert done.exit_code == 0, done.output
        with open_results(tmp_path / name) as results:
            embeddings.append(results.embedding("mobilefacenet"))
            maps.append(results.map("mobilefacenet", "conv1.0"))
    assert embeddings[0].shape == (9, 128)
    np.testing.assert_array_equal(*embeddings)
    np.testing.assert_array_equal(*maps)


def test_the_largest_face_and_the_paper_s_crop(photos, tmp_path):
    pytest.importorskip("dlib")
    options = ["--detector", "dlib", "--align", "paper", "--faces", "largest", "--size", 224, "--threads", 1]
    done = invoke("align", photos, "--out", tmp_path / "out", *options, "--images-per-identity", 2, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["images"] + report["failures"] == 6
    assert report["images"] >= 4
    found = read_manifest(tmp_path / "out")
    assert {np.array(Image.open(found.resolve(e))).shape for e in found.entries} == {(224, 224, 3)}


def test_no_face_anywhere_is_said(shared_data, detector, tmp_path):
    data = tmp_path / "data/logo"
    data.mkdir(parents=True)
    (data / "1.jpg").symlink_to(shared_data / "photos_bad/none_logo.jpg")
    out = tmp_path / "out"
    done = invoke("align", tmp_path / "data", "--out", out, "--detector", detector, "--threads", 1)
    assert done.exit_code == 0
    assert done.stdout == ""
    assert (
        f"no image has a crop: {out / 'manifest.csv'} lists none, and batch will not take it" in done.stderr
    )


def test_failed_shards_are_status_1(tmp_path, monkeypatch):
    report = AlignReport(tmp_path, 5, 2, 3, {"compute": 3}, 1, 0, 1, False, 2.0, 2.5)
    monkeypatch.setattr(align_command, "run_align", lambda request, note: report)
    done = invoke("align", tmp_path, "--out", tmp_path, "--detector", "dlib")
    assert done.exit_code == 1
    assert f"3 rows in {tmp_path / 'failures.csv'} say what was left out: 3 compute" in done.stderr
    assert "1 shards failed; --resume tries them again" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["data"], "Missing option '--out'"),
        (["data", "--out", "out"], "Missing option '--detector'"),
        (["data", "--out", "out", "--detector", "retinaface=absent"], "there is no file absent"),
        (["data", "--out", "out", "--detector", "retinaface=file"], "it is no PyTorch checkpoint"),
        (["nowhere", "--out", "out", "--detector", "retinaface=file"], "no such file or folder"),
        (
            ["data", "--out", "out", "--detector", "retinaface=file", "--align", "none"],
            "--align must be one of",
        ),
        (["data", "--out", "data/out", "--detector", "retinaface=file"], "must lie outside of DATA"),
    ],
)
def test_what_the_user_did_wrong_is_status_2(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "data/x").mkdir(parents=True)
    (tmp_path / "data/x/1.jpg").touch()
    monkeypatch.setattr(sys, "argv", ["leamfast", "align", *args])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert captured.out == ""
    assert words in " ".join(captured.err.split())
    assert "Traceback" not in captured.err
    assert {path.name for path in tmp_path.iterdir()} == {"file", "data"}


def test_ctrl_c_stops_cleanly_and_resume_goes_on(shared_data, detector, tmp_path):
    out = tmp_path / "out"
    asked = ["align", shared_data / "photos", "--out", out, "--detector", detector, "--threads", "1"]
    path = os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "bench"))
    environment = {**os.environ, "PYTHONPATH": path, "LEAMFAST_FACE_CACHE": "off"}
    process = subprocess.Popen(
        [sys.executable, ROOT / "cli.py", *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    while process.poll() is None and not list(out.glob(".align/shards/shard-*.json")):
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "go on with --resume" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert not (out / "manifest.csv").exists()
    done = invoke(*asked, "--resume", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["images"], report["shards"] + report["skipped"]) == (61, 4)
    assert report["skipped"] >= 1

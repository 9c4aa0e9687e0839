"""`leamfast plan` beside the run that it speaks of."""

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leamfast.cli.batch import batch
from leamfast.cli.main import app
from leamfast.cli.plan import plan
from leamfast.errors import RequestError
from leamfast.store.part import datasets, open_part

OPTIONS = ["--model", "demo=random:0", "--align", "none", "--threads", "1", "--batch-size", "8"]


def invoke(*args: object):
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def run_json(*args: object) -> dict:
    return json.loads(invoke(*args, "--json").stdout)


def folder_bytes(out: Path) -> int:
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "more",
    [
        ["--shard-images", "12"],
        ["--references", "each", "--layers", "conv1,layer4.0.conv2", "--model", "again:=demo=random:1"],
        ["--references", "mean-map", "--layers", "layer4.0.conv2", "--parser", "none"],
    ],
    ids=["shards", "each", "mean-map"],
)
def test_what_is_foretold_is_what_happens(faces, tmp_path, more):
    out = tmp_path / "out"
    told = run_json("plan", faces, "--out", out, *OPTIONS, *more)
    assert list(tmp_path.iterdir()) == []  # nothing is written
    report = run_json("batch", faces, "--out", out, *OPTIONS, *more)
    assert told["images"] == report["images"] == 48
    assert told["identities"] == report["identities"] == 12
    assert told["shards"] == report["shards"]
    assert told["bytes"] == pytest.approx(folder_bytes(out), rel=0.1)
    assert told["sample_images"] == told["usable"] == 24
    assert (told["largest_identity"], told["largest_identity_images"]) == ("id0000", 4)
    assert 0 < told["time"]["low"] <= told["time"]["seconds"] <= told["time"]["high"]
    with open_part(out / "shards/part-00000.h5") as part:
        stored = datasets(part)
        for model in told["models"]:
            assert model["backend"] == "eager"
            assert all(f"model/{model['name']}/layer/{tap}/map" in stored for tap in model["taps"])


def test_a_run_that_is_half_finished(faces, finished_run, tmp_path):
    out = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (out / "shards/part-00002.h5").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    options = ["--model", "demo=random:0", "--align", "none", "--threads", "1", "--batch-size", "5"]
    told = run_json("plan", faces, "--out", out, *options, "--shard-images", "12", "--resume")
    assert (told["shards"], told["finished_shards"]) == (4, 3)
    assert told["bytes_there"] == sum(path.stat().st_size for path in out.glob("shards/part-*.h5"))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    settings = (out / "run.toml").read_text()  # made by a cluster, whose devices this machine does not have
    (out / "run.toml").write_text(re.sub('^device = ".*"', 'device = "H100"', settings, flags=re.MULTILINE))
    told = run_json("plan", faces, "--out", out, *options, "--shard-images", "12", "--resume", "--gpus", "4")
    assert (told["finished_shards"], told["workers"]) == (3, 4)
    with pytest.raises(RequestError, match="made with other settings"):
        invoke("plan", faces, "--out", out, *OPTIONS, "--resume")
    with pytest.raises(RequestError, match="holds a run already"):
        invoke("plan", faces, "--out", out, *OPTIONS)


def test_what_a_person_reads(faces):
    text = " ".join(invoke("plan", faces, *OPTIONS, "--workers", "2", "--shard-images", "12").stdout.split())
    assert "48 of 12 people" in text
    assert "4; smallest 12, median 12, largest 12 images" in text
    assert "demo, 112 px, eager, 9 taps, conv1 .. layer4.0.conv2" in text
    assert "free at leamfast-out" in text
    assert "by 2 workers, each assumed to keep 90% of the" in text
    assert "measured on 24 images" in text


def test_gpus_of_a_cluster_share_the_work(faces):
    told = run_json("plan", faces, *OPTIONS, "--gpus", "4", "--shard-images", "12")
    assert (told["workers"], told["shards"], told["efficiency"]) == (4, 4, 0.9)


def test_a_folder_without_room_is_said(faces, monkeypatch):
    import leamfast.engine.batch_plan as batch_plan

    monkeypatch.setattr(batch_plan.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    told = run_json("plan", faces, *OPTIONS, "--layers", "layer4.0.conv2")
    assert (told["bytes_free"], told["fits"]) == (1000, False)
    assert "NOT ENOUGH" in invoke("plan", faces, *OPTIONS, "--layers", "layer4.0.conv2").stdout


def test_a_plan_takes_the_options_of_a_run():
    assert inspect.signature(plan).parameters == inspect.signature(batch).parameters


def test_a_plan_without_data():
    with pytest.raises(RequestError, match="DATA must be given"):
        invoke("plan")

"""`leamfast occlude` as a user calls it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import leamfast.engine.occlude_plan
import leamfast.engine.occlusion_evaluation
from leamfast.cli.main import app, main
from leamfast.errors import RequestError
from leamfast.store.verify import verify

ROOT = Path(__file__).resolve().parents[2]
NEEDED = "random,shifted,other-identity,population"
QUICK = ["--percents", "1,5", "--seeds", "1", "--controls", NEEDED, "--backend", "eager", "--threads", "1"]
MAPS = ("conv1", "layer2.0.conv1", "fused")
ALWAYS = {"occlusion", "transfer", "specificity", "specificity_identities", "specificity_verdicts"}


def invoke(*args: object):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def run_json(*args: object) -> dict:
    result = invoke(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # and nothing else is there


def table(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def two_models(tmp_path_factory) -> Path:
    """A run over 4 synthetic people with 2 images each by two models. Not to be changed."""
    folder = tmp_path_factory.mktemp("occlude")
    run_json("synth", folder / "faces", "--identities", 4, "--images", 2, "--seed", 4)
    run_json(
        "batch", folder / "faces", "--out", folder / "run", "--model", "demo",
        "--model", "untrained:=demo=random:0", "--align", "none", "--layers", ",".join(MAPS[:-1]),
        "--threads", 1, "--backend", "eager",
    )  # fmt: skip
    return folder / "run"


@pytest.fixture
def run(two_models, tmp_path) -> Path:
    return Path(shutil.copytree(two_models, tmp_path / "run"))


@pytest.fixture(scope="module")
def first_report(two_models, tmp_path_factory) -> dict:
    """Of a run that was occluded with `QUICK`. Not to be changed."""
    folder = Path(shutil.copytree(two_models, tmp_path_factory.mktemp("occluded") / "run"))
    return run_json("occlude", folder, *QUICK)


@pytest.fixture
def occluded(first_report, tmp_path) -> Path:
    return Path(shutil.copytree(first_report["out"], tmp_path / "occluded"))


def test_two_models_see_the_maps_of_each_other(first_report):
    report = first_report
    assert (report["images"], report["failed_blocks"], report["interrupted"]) == (8, 0, False)
    assert report["sources"] == report["evaluated"] == ["demo", "untrained"]
    assert report["controls"] == ["own", *NEEDED.split(",")]
    assert set(report["tables"]) == {*ALWAYS, "groups"}
    assert verify(Path(report["out"])) == []

    occlusion = table(report["tables"]["occlusion"])
    wanted = "source_model,evaluated_model,map,control,threshold,fill,drop,drop_low,drop_high,n"
    assert ",".join(occlusion[0]).startswith(f"{wanted},")
    assert len(occlusion) == 4 * len(MAPS) * 5 * 2  # pairs of models, maps, controls, percents
    transfer = table(report["tables"]["transfer"])
    cells = {(row["source_model"], row["evaluated_model"], row["map"], row["threshold"]) for row in transfer}
    models = ("demo", "untrained")
    assert cells == {(s, e, m, p) for s in models for e in models for m in MAPS for p in ("1", "5")}
    assert len(transfer) == len(cells)
    home = {
        (row["source_model"], row["map"], row["threshold"]): float(row["drop"])
        for row in transfer
        if row["source_model"] == row["evaluated_model"]
    }
    for row in transfer:
        at_home = home[row["source_model"], row["map"], row["threshold"]]
        part = float(row["drop"]) / at_home if at_home > 0 else np.nan
        assert float(row["of_source"]) == pytest.approx(part, rel=1e-4, nan_ok=True)
    assert home["demo", "fused", "1"] > 0
    away = {
        (row["source_model"], row["map"], row["threshold"]): float(row["drop"])
        for row in transfer
        if row["source_model"] != row["evaluated_model"]
    }
    assert all(abs(away[key] - home[key]) > 1e-4 for key in home)  # another model sees something else

    verdicts = report["verdicts"]
    assert [(v["model"], v["map"]) for v in verdicts] == [(s, m) for s in models for m in MAPS]
    assert all(v["threshold"] == 1 and "only 4 people" in v["sentence"] for v in verdicts)
    written = table(report["tables"]["specificity_verdicts"])
    assert [row["sentence"] for row in written] == [v["sentence"] for v in verdicts]


def test_what_a_user_reads(occluded):
    found = invoke("occlude", occluded, *QUICK)
    assert found.exit_code == 0, found.output
    printed = found.stdout.splitlines()
    start = next(i for i, line in enumerate(printed) if line.startswith("model"))
    heads = ["own", "random", "shifted", "other person", "all others", "verdict"]
    assert [head for head in heads if head in printed[start]] == heads
    lines = [line.split() for line in printed[start + 1 : start + 1 + 2 * len(MAPS)]]
    rows = [
        row for row in table(occluded / "tables/specificity.csv") if row["threshold"] == "1"
    ]  # the same numbers, in the same order
    for line, row in zip(lines, rows, strict=True):
        assert line[:2] == [row["model"], row["map"]]
        shown = [row[name] for name in ("drop", "random", "shifted", "other_identity", "population")]
        assert line[2:7] == [f"{float(value):.3f}" for value in shown]
    assert "maps of untrained" in found.stdout
    assert "seen by untrained" in found.stdout
    assert "only 4 people, under 10" in found.stderr
    assert "specificity_verdicts.csv" in found.stderr
    assert max(map(len, found.stderr.splitlines())) < 220  # sentences of verdicts stand in their table


def test_one_model_of_several(run):
    report = run_json("occlude", run, *QUICK, "--sources", "untrained", "--evaluated", "demo")
    assert {(r["source_model"], r["evaluated_model"]) for r in table(report["tables"]["transfer"])} == {
        ("untrained", "demo")
    }
    assert report["verdicts"] == []  # no model saw its own maps
    assert table(report["tables"]["specificity"]) == []
    printed = invoke("occlude", run, *QUICK, "--sources", "untrained", "--evaluated", "demo")
    assert printed.exit_code == 0, printed.output
    assert "verdict" not in printed.stdout


def test_analyze_makes_the_tables_again(occluded):
    run = occluded
    report = run_json("occlude", run, *QUICK, "--groups", "glasses,hat")
    before = {name: Path(path).read_bytes() for name, path in report["tables"].items()}
    tables = run_json("analyze", run)
    assert {name: Path(tables[name]).read_bytes() for name in before} == before  # groups too
    assert tables["curves"] is tables["fills"] is tables["within_person"] is None
    said = invoke("analyze", run)
    assert f"{len(MAPS) * 8} rows in {run}/tables/transfer.csv" in said.stderr
    run_json("analyze", run, "--groups", "skin")
    assert {row["columns"] for row in table(tables["groups"])} == {"skin"}
    Path(tables["groups"]).unlink()
    unasked = run_json("analyze", run)
    assert "glasses" in {row["columns"] for row in table(unasked["groups"])}


def test_analyze_of_a_run_that_was_not_occluded(two_models):
    tables = run_json("analyze", two_models)
    assert tables["occlusion"] is tables["transfer"] is None
    with pytest.raises(RequestError, match="nothing of .* was occluded: run `leamfast occlude"):
        CliRunner().invoke(app, ["analyze", str(two_models), "--groups", "hat"], catch_exceptions=False)


def test_groups_of_metadata_and_crossings(occluded):
    report = run_json("occlude", occluded, *QUICK, "--groups", "glasses", "--groups", "glasses,hat")
    groups = table(report["tables"]["groups"])
    assert {row["columns"] for row in groups} == {"glasses", "glasses x hat"}
    assert {row["few"] for row in groups} == {"True"}  # marked, not hidden
    at = ("demo", "demo", "glasses", "fused", "1")
    of = ("source_model", "evaluated_model", "columns", "map", "threshold")
    mine = [row for row in groups if tuple(row[name] for name in of) == at]
    assert {row["group"] for row in mine} <= {"true", "false"}
    assert sum(int(row["n"]) for row in mine) == 8
    assert sum(int(row["people"]) for row in mine) == 4


def test_curves_and_their_areas(run):
    options = ["--percents", "1", "--seeds", "1", "--controls", "random,shifted,centre", "--threads", "1"]
    one = ["--evaluated", "demo", "--sources", "demo", "--backend", "eager"]
    report = run_json("occlude", run, *options, *one, "--curves")
    curves, areas = table(report["tables"]["curves"]), table(report["tables"]["curve_areas"])
    assert len(areas) == len(MAPS) * 4 * 2
    assert len(curves) == 21 * len(areas)
    ends = {
        (row["curve"], row["percent"]): float(row["cosine"])
        for row in curves
        if (row["map"], row["control"]) == ("fused", "own")
    }
    assert ends["deletion", "0"] == pytest.approx(ends["insertion", "100"], abs=1e-5)
    assert ends["deletion", "100"] == pytest.approx(ends["insertion", "0"], abs=1e-5)
    path = [ends["deletion", f"{percent}"] for percent in range(0, 101, 5)]
    (area,) = [
        float(row["area"])
        for row in areas
        if (row["map"], row["control"], row["curve"]) == ("fused", "own", "deletion")
    ]
    assert area == pytest.approx(np.trapezoid(path) / 20, abs=1e-4)
    assert all(v["verdict"] == "not tested" for v in report["verdicts"])
    told = invoke("occlude", run, *options, *one, "--curves")
    assert "verdicts need the controls other-identity, population too" in told.stderr


def test_fills_at_equal_area_and_at_equal_visible_change(run):
    options = ["--percents", "2,5", "--seeds", "1", "--controls", "own", "--threads", "1"]
    one = ["--evaluated", "demo", "--sources", "demo", "--backend", "eager"]
    fills = "black,mean,blur,noise,inpaint"
    report = run_json("occlude", run, *options, *one, "--fills", fills)
    rows = table(report["tables"]["fills"])
    assert {row["compared_at"] for row in rows} == {"area", "psnr", "ssim"}
    area = [row for row in rows if row["compared_at"] == "area"]
    assert len(area) == len(MAPS) * 2 * 5
    at = {row["fill"]: row for row in area if (row["map"], row["level"]) == ("fused", "5")}
    assert list(at) == fills.split(",")
    assert float(at["black"]["psnr"]) < float(at["mean"]["psnr"]) < float(at["blur"]["psnr"])
    assert all(float(row["psnr"]) > 0 and float(row["ssim"]) <= 1 for row in at.values())
    assert "within_person" not in report["tables"]


def test_finished_blocks_are_kept_and_other_options_are_refused(occluded, first_report):
    again = run_json("occlude", occluded, *QUICK)
    assert (again["blocks"], again["skipped"]) == (0, first_report["blocks"])
    with pytest.raises(RequestError, match="occluded with other settings .*seeds"):
        CliRunner().invoke(app, ["occlude", str(occluded), *QUICK, "--seeds", "2"], catch_exceptions=False)
    other = ["--percents", "10", "--seeds", "1", "--controls", "random", "--sources", "demo"]
    thrown = run_json("occlude", occluded, *other, "--backend", "eager", "--overwrite")
    assert thrown["skipped"] == 0
    assert {row["threshold"] for row in table(thrown["tables"]["occlusion"])} == {"10"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--percents", "1,many"], "--percents must be numbers separated by commas, got '1,many'"),
        (["--percents", "0"], "--percents must name percents above 0 and below 100, got 0"),
        (["--percents", ","], "--percents must name percents above 0 and below 100, got none"),
        (["--fills", "white"], "--fills must name some of black, mean, blur, noise, inpaint, got 'white'"),
        (["--controls", "own,mirror"], "got 'mirror'"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--sources", "nobody"], "--sources must name models of the run (demo, untrained), got 'nobody'"),
        (["--evaluated", "nobody"], "--evaluated must name models of the run (demo, untrained)"),
        (["--model", "other:=demo"], "--model must name models of the run (demo, untrained), got 'other'"),
        (["--groups", "sex"], "groups must name metadata columns, got sex: there are"),
        (["--groups", "hat,sex"], "groups must name metadata columns, got sex: there are"),
        (["--device", "gpu"], "device"),
    ],
)
def test_wrong_options_are_one_sentence_and_status_2(two_models, options, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["leamfast", "occlude", str(two_models), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.out == ""
    assert words in captured.err
    assert len([line for line in captured.err.splitlines() if line.startswith("leamfast: ")]) == 1
    assert not (two_models / "occlusion").exists()  # nothing was computed


def test_a_folder_without_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["leamfast", "occlude", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "no index.h5" in capsys.readouterr().err


def test_failed_blocks_end_with_status_1_and_are_tried_again(run, monkeypatch):
    with monkeypatch.context() as broken:

        def fail(*_args: object) -> None:
            raise ValueError("the embedding went wrong")

        broken.setattr(leamfast.engine.occlusion_evaluation, "occluded_units", fail)
        found = invoke("occlude", run, *QUICK, "--json")
    assert found.exit_code == 1, found.output
    report = json.loads(found.stdout)
    assert report["failed_blocks"] >= 1
    assert (report["tables"], report["verdicts"]) == ({}, [])
    assert "blocks of images failed and no table is made; the same command tries them again" in found.stderr
    assert not (run / "tables/occlusion.csv").exists()
    assert run_json("occlude", run, *QUICK)["failed_blocks"] == 0
    assert verify(run) == []


def test_ctrl_c_stops_after_a_block_and_the_same_command_goes_on(run, monkeypatch):
    """Blocks are made small, so that there are several."""
    code = (
        "import sys, leamfast.engine.occlude_plan as plan\n"
        "plan.IMAGES = {'cpu': 1}\n"
        "from leamfast.cli.main import main\nmain()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "bench"))}
    command = [sys.executable, "-c", code, "occlude", run, *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    while process.poll() is None and not list((run / "occlusion").glob("*.h5")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert printed == ""
    done = len(list((run / "occlusion").glob("*.h5")))
    assert 1 <= done < 8
    assert not list((run / "occlusion").glob(".*tmp*"))
    assert not (run / "tables/occlusion.csv").exists()
    monkeypatch.setattr(leamfast.engine.occlude_plan, "IMAGES", {"cpu": 1})
    report = run_json("occlude", run, *QUICK)
    assert (report["blocks"], report["skipped"]) == (8 - done, done)
    assert verify(run) == []

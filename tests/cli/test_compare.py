"""`leamfast compare` as a user calls it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leamfast.cli.main import app, main
from leamfast.store.verify import verify

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_compare_then_analyze(run):
    options = ["--emd-pairs", "2", "--emd-percents", "100", "--kinds", "C,D", "--json"]
    found = CliRunner().invoke(app, ["compare", str(run), *options])
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert set(report["pairs"]) == {"C", "D"}
    assert set(report["tables"]) == {"similarity", "paper", "verdicts"}
    assert report["without_references"] == ""
    assert all(verdict["sentence"] for verdict in report["verdicts"])
    with Path(report["tables"]["similarity"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = ["model", "map", "kind", "threshold", "prior", "measure", "mean", "low", "high", "n"]
    assert list(rows[0])[: len(wanted)] == wanted
    assert {row["prior"] for row in rows} == {"kept", "removed"}
    before = {name: Path(path).read_bytes() for name, path in report["tables"].items()}
    for path in report["tables"].values():
        Path(path).unlink()
    tables = json.loads(CliRunner().invoke(app, ["analyze", str(run), "--json"]).stdout)
    assert {name: Path(tables[name]).read_bytes() for name in before} == before
    assert verify(run) == []


def test_what_is_missing_is_said_in_one_sentence(run):
    found = CliRunner().invoke(app, ["compare", str(run), "--emd-pairs", "0"])
    assert found.exit_code == 0, found.output
    lines = [line for line in found.stderr.splitlines() if "they need maps of single references" in line]
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pairs", "many"], "--pairs must be a number or all"),
        (["--emd-percents", "x"], "--emd-percents must be whole numbers"),
        (["--kinds", "C,E"], "--kinds must name some of"),
    ],
)
def test_wrong_options_are_one_sentence_and_status_2(run, options, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["leamfast", "compare", str(run), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_ctrl_c_stops_after_a_tile_and_the_same_command_goes_on(run):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "bench"))}
    command = [
        sys.executable,
        ROOT / "cli.py",
        "compare",
        run,
        "--kinds",
        "C",
        "--emd-pairs",
        "8",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    while not list((run / "pairs").glob("pairs-*")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert not list((run / "pairs").glob(".*tmp"))
    done = len(list((run / "pairs").glob("pairs-*")))
    assert verify(run) == []
    options = ["compare", str(run), "--kinds", "C", "--emd-pairs", "8", "--threads", "1", "--json"]
    found = CliRunner().invoke(app, options)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["skipped"] == done
    assert verify(run) == []

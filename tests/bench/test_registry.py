"""The registry of benchmarks and its command."""

import json
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from leamfast.cli.main import app, main
from leamfast_bench import registry


def refused(monkeypatch, capsys, *args: str) -> str:
    """What a command says that ends with status 2."""
    monkeypatch.setattr(sys, "argv", ["leamfast", *args])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert captured.out == ""
    return captured.err


def test_without_a_suite_all_are_listed():
    assert registry.names() == ("engine", "faces", "kernels", "maps", "occlusion", "similarity", "truth")
    listed = CliRunner().invoke(app, ["bench"])
    as_json = CliRunner().invoke(app, ["bench", "--json"])
    assert (listed.exit_code, as_json.exit_code) == (0, 0)
    summaries = {name: registry.registered(name).summary for name in registry.names()}
    assert json.loads(as_json.stdout) == {"benchmarks": summaries}
    for name, summary in summaries.items():
        assert name in listed.stdout
        assert summary[:40] in listed.stdout


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (
            ["speed"],
            "benchmark must be one of engine, faces, kernels, maps, occlusion, similarity, truth, "
            "got 'speed'",
        ),
        (
            ["truth", "--method", "own_methods:centre"],
            "--method own_methods:centre runs code of yours: allow it with --trust-code",
        ),
        (
            ["truth", "--method", "centre", "--trust-code"],
            "--method must be module:function, got 'centre'",
        ),
        (
            ["truth", "--method", "own_methods:centre", "--trust-code"],
            "--method own_methods:centre cannot be had: ModuleNotFoundError: No module named 'own_methods'",
        ),
        (
            ["truth", "--models", "nowhere"],
            "nowhere holds no planted model: train them with "
            "`python -m leamfast_bench.truth.train --out nowhere`",
        ),
        (
            ["truth", "--out", "nowhere/truth.json"],
            "--out nowhere/truth.json must be a file in a folder that exists",
        ),
        (["truth", "--device", "gpu"], "--device must be cpu, cuda or cuda:N, got 'gpu'"),
        (["truth", "--device", "meta"], "--device must be cpu, cuda or cuda:N, got 'meta'"),
        (["maps", "--device", "mps"], "--device must be cpu, cuda or cuda:N, got 'mps'"),
        (
            ["maps", "--models", "nowhere"],
            "--models means nothing to the benchmark maps: leave it out",
        ),
        (["maps", "--workers", "2"], "--workers means nothing to the benchmark maps: leave it out"),
    ],
)
def test_what_the_user_did_wrong_is_one_sentence(monkeypatch, capsys, own_module, args, sentence):
    assert refused(monkeypatch, capsys, "bench", *args) == f"leamfast: {sentence}\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(monkeypatch, capsys):
    said = refused(monkeypatch, capsys, "bench", "truth", "--device", "cuda")
    assert "--device cuda asks for a GPU, but torch sees 0 here" in said


def test_tables_are_for_people_and_json_is_for_programs(monkeypatch, tmp_path):
    table = registry.Table("fake", "Title of it", ("name", "value"), (("a", 1.5), ("b", 2.0)))
    fake = registry.Benchmark(
        "a fake", (), lambda options: {"threads": options.threads}, lambda results: [table]
    )
    monkeypatch.setattr(registry, "registered", lambda name: fake)
    shown = CliRunner().invoke(app, ["bench", "truth", "--out", str(tmp_path / "out.json")])
    assert shown.exit_code == 0, shown.output
    assert "Title of it" in shown.stdout
    assert "1.50" in shown.stdout
    found = CliRunner().invoke(app, ["bench", "truth", "--json"])
    assert json.loads(found.stdout)["results"] == {"threads": 1}
    assert json.loads((tmp_path / "out.json").read_text())["results"] == {"threads": 1}


def test_the_commit_is_that_of_our_own_checkout(tmp_path, monkeypatch):
    def git(*args: str) -> str:
        said = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *said, *args], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    ours = tmp_path / "registry.py"
    ours.write_text("")
    monkeypatch.setattr(registry, "__file__", str(ours))
    assert registry._commit() == "unknown"  # no checkout
    git("init", "-q")
    (tmp_path / "theirs.py").write_text("")
    git("add", "theirs.py")
    git("commit", "-q", "-m", "theirs")
    assert registry._commit() == "unknown"  # somebody's, in which we lie
    git("add", "registry.py")
    git("commit", "-q", "-m", "ours")
    head = git("rev-parse", "HEAD")
    assert registry._commit() == head
    (tmp_path / "untracked").write_text("")
    assert registry._commit() == head
    ours.write_text("changed")
    assert registry._commit() == head + "+"

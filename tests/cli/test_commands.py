"""Commands as a user runs them: what they print, where, and with which status."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import leamfast.cli.batch as batch_command
from leamfast.cli.main import app, main
from leamfast.errors import RequestError

ROOT = Path(__file__).resolve().parents[2]
BATCH = ["--model", "demo=random:0", "--align", "none", "--layers", "conv1,layer2.0.conv1", "--threads", "1"]


def invoke(*args: object):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def run_json(*args: object) -> dict:
    result = invoke(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "synth",
        "align",
        "batch",
        "plan",
        "compare",
        "occlude",
        "analyze",
        "verify",
        "models",
        "layers",
        "info",
    ],
)
def test_every_command_explains_itself(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_synth_then_batch_then_verify_then_analyze(tmp_path):
    faces, out = tmp_path / "faces", tmp_path / "out"
    made = run_json("synth", faces, "--identities", 3, "--images", 2, "--seed", 4)
    assert made["images"] == 6
    report = run_json("batch", faces, "--out", out, *BATCH)
    assert (report["images"], report["identities"], report["failures"]) == (6, 3, 0)
    assert run_json("verify", out) == {"out": str(out), "whole": True, "problems": []}
    tables = run_json("analyze", out)
    with Path(tables["regions"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == tables["rows"] == 3 * 6 * 19  # maps, thresholds, regions
    assert {row["map"] for row in rows} == {"conv1", "layer2.0.conv1", "fused"}
    shares = [float(r["share"]) for r in rows if r["map"] == "fused" and r["threshold"] == "5"]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    areas = [float(r["area"]) for r in rows if r["map"] == "fused" and r["threshold"] == "5"]
    assert sum(areas) == pytest.approx(1, abs=1e-4)
    nose = next(r for r in rows if (r["map"], r["threshold"], r["region"]) == ("conv1", "20", "nose"))
    assert float(nose["low"]) <= float(nose["share"]) <= float(nose["high"])
    assert float(nose["over_representation"]) == pytest.approx(
        float(nose["share"]) / float(nose["area"]), rel=1e-3
    )


def test_verify_ends_with_status_1_where_something_is_wrong(finished_run, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "shards/part-00000.h5").unlink()
    result = invoke("verify", run, "--json")
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["whole"]


def test_a_run_can_be_asked_for_by_the_run_toml_of_another(faces, finished_run, tmp_path):
    out = tmp_path / "again"
    report = run_json("batch", "--config", finished_run / "run.toml", "--out", out, "--target", "similarity")
    assert report["images"] == 48
    settings = (out / "run.toml").read_text()
    assert 'target = "similarity"' in settings
    assert "batch_size = 5" in settings


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--preset", "faithful"], ("similarity", "positive", "receptive", "mean")),
        (["--preset", "paper"], ("loss", "signed", "resize", "mean")),
        (["--preset", "faithful", "--target", "loss"], ("loss", "positive", "receptive", "mean")),
        ([], ("loss", "signed", "resize", "each")),  # the config's own
        (["--preset", "faithful", "--references", "each"], ("similarity", "positive", "receptive", "each")),
    ],
)
def test_presets_stand_between_options_and_config(tmp_path, monkeypatch, options, expected):
    asked = []
    monkeypatch.setattr(batch_command, "run_batch", lambda request, note: asked.append(request))
    monkeypatch.setattr(batch_command, "finish", lambda report, as_json: None)
    (tmp_path / "c.toml").write_text('[request]\nmodel = ["demo"]\nreferences = "each"\n')
    invoke("batch", tmp_path, "--config", tmp_path / "c.toml", "--out", tmp_path / "out", *options)
    (request,) = asked
    assert (request.target, request.activation, request.registration, request.references) == expected


def test_an_unknown_preset():
    with pytest.raises(RequestError, match="preset must be one of paper, faithful, got 'best'"):
        CliRunner().invoke(app, ["batch", "x", "--preset", "best"], catch_exceptions=False)


def test_config_with_an_unknown_option(tmp_path):
    (tmp_path / "c.toml").write_text("[request]\ncolour = 1\n")
    with pytest.raises(RequestError, match="unknown option 'colour'"):
        CliRunner().invoke(app, ["batch", "--config", str(tmp_path / "c.toml")], catch_exceptions=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[request]\nbatch_size = "abc"', "batch_size must be int, got 'abc'"),
        ("[request]\nbatch_size = 1.5", "batch_size must be int"),
        ('[request]\nmodel = "demo"', "model must be tuple"),
        ('request = "x"', "must be tables"),
        ("[models]\none = 3", r"c.toml: \[models\] one must be a table"),
    ],
)
def test_config_with_values_of_another_kind(tmp_path, text, words):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(RequestError, match=words):
        CliRunner().invoke(app, ["batch", "--config", str(tmp_path / "c.toml")], catch_exceptions=False)


def test_results_without_one_of_their_parts_are_not_read(finished_run, tmp_path):
    import shutil

    from leamfast import open_results

    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / "shards/part-00002.h5").unlink()
    with pytest.raises(RequestError, match="lacks shards/part-00002.h5"):
        open_results(run)


def test_a_model_from_code_gets_its_preprocessing_from_options(faces, tmp_path, monkeypatch):
    (tmp_path / "user_nets.py").write_text(
        "import torch\nfrom leamfast.models.demo import demo_network\n"
        "def mine():\n    torch.manual_seed(0)\n    return demo_network()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--trust-code", "--input-size", 112, "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5",
               "--channels", "rgb", "--align", "none", "--layers", "conv1"]  # fmt: skip
    report = run_json("batch", faces, "--out", tmp_path / "out", "--model", "user_nets:mine", *options)
    assert report["images"] == 48


def test_a_config_cannot_say_that_code_is_to_be_trusted(faces, tmp_path, monkeypatch):
    (tmp_path / "their_nets.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
        "import torch\nfrom leamfast.models.demo import demo_network\n"
        "def theirs():\n    torch.manual_seed(0)\n    return demo_network()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "run.toml"
    config.write_text(
        '[request]\nmodel = ["their_nets:theirs"]\ntrust_code = true\nalign = "none"\nlayers = ["conv1"]\n'
        '[models.theirs]\nsize = 112\nchannels = "rgb"\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n'
    )
    command = ["batch", faces, "--config", config, "--out", tmp_path / "out"]
    refused = CliRunner().invoke(app, [str(word) for word in command])
    assert isinstance(refused.exception, RequestError)
    assert "allow it with --trust-code" in str(refused.exception)
    assert not (tmp_path / "ran").exists()
    assert run_json(*command, "--trust-code")["images"] == 48
    assert (tmp_path / "ran").exists()


def test_layers_and_models_and_info():
    named = {row["name"]: row for row in run_json("models")["models"]}
    assert {"demo", "AF_R18", "CF_R100", "mobilefacenet"} <= set(named)
    found = run_json("layers", "AF_R18")["layers"]
    stem = found[0]
    assert (stem["layer"], stem["channels"], stem["height"], stem["auto"]) == ("conv1", 64, 112, True)
    assert sum(row["auto"] for row in found) == 9
    assert "torch" in run_json("info")["versions"]
    assert invoke("layers", "AF_R18").exit_code == 0
    assert invoke("models").exit_code == 0
    assert invoke("info").exit_code == 0


def test_demo_tells_what_was_found_and_draws_it(tmp_path):
    from PIL import Image

    result = invoke("demo", "--out", tmp_path / "demo", "--identities", 3, "--images", 2)
    assert result.exit_code == 0, result.output
    assert "nose" in result.stdout
    assert "fused" in result.stdout
    picture = Image.open(tmp_path / "demo/maps.png").convert("RGB")
    assert picture.width > 800
    assert len(picture.getcolors(1 << 24)) > 1000  # something is drawn
    assert (tmp_path / "demo/run/index.h5").is_file()
    shown = [line.split() for line in result.stdout.splitlines()]
    assert ["map", "own", "random", "shifted", "other", "person", "all", "others", "verdict"] in shown
    with (tmp_path / "demo/run/tables/specificity.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["threshold"] == "1"]
    names = ("drop", "random", "shifted", "other_identity", "population")
    for row in rows:  # the table that is shown is that of 1%
        assert any(line[:6] == [row["map"], *(f"{float(row[name]):.3f}" for name in names)] for line in shown)
    assert [row["map"] for row in rows][-1] == "fused"
    for row in rows:  # BC of compared maps stands beside the drops
        same, other = float(row["bc_same"]), float(row["bc_other"])
        assert 0 <= other <= 1
        assert float(row["bc_difference"]) == pytest.approx(same - other, abs=1e-5)
    with (tmp_path / "demo/run/tables/within_person.csv").open(newline="") as file:
        within = [row for row in csv.DictReader(file) if row["threshold"] == "1"]
    assert {row["map"] for row in within} == {row["map"] for row in rows}
    against = {"own", "other-identity", "nearest-pose", "master-1", "master"}
    for name in against:
        drops = [float(row["drop"]) for row in within if row["against"] == name]
        assert len(drops) == len(rows)
        assert all(abs(drop) < 2 for drop in drops)
    again = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo")])
    assert isinstance(again.exception, RequestError)


def test_demo_says_the_same_in_json(tmp_path):
    found = run_json("demo", "--out", tmp_path / "demo", "--identities", 2, "--images", 2)
    assert set(found["over_representation"]) == {row["map"] for row in found["occlusion"]}
    for row in found["occlusion"]:
        assert row["verdict"] in (
            "person-specific",
            "mostly position prior",
            "no better than random",
            "undecided",
        )
        assert all(abs(row[name]) < 2 for name in ("drop", "random", "shifted", "other_identity"))
        assert row["specificity"] == pytest.approx(row["drop"] - row["other_identity"], abs=1e-6)
    with Path(found["tables"]["occlusion"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    controls = {"own", "random", "shifted", "other-identity", "population", "centre"}
    assert {row["control"] for row in rows} == controls
    assert {row["threshold"] for row in rows} == {"1", "5"}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["batch"], "DATA must be given"),
        (
            ["batch", "nowhere", "--out", "out", "--model", "demo", "--align", "none"],
            "no such file or folder",
        ),
        (["batch", ".", "--out", "out", "--model", "demo"], "--detector retinaface=FILE"),
        (["layers", "nothing"], "none of the named models"),
        (["verify", "nowhere"], "run.toml cannot be read"),
        (["analyze", "nowhere"], "no index.h5"),
        (["occlude", "nowhere"], "no index.h5"),
        (["synth", "x", "--identities", "0"], "identities must be at least 1"),
        (["synth", "x", "--plant", "chin"], "plant"),
        (["synth", "file/x"], "cannot be made: Not a directory"),
        (["demo", "--out", "file"], "cannot be made: Not a directory"),
        (["batch", "manifest.csv", "--out", "file", *BATCH], "cannot be made"),
        (
            ["batch", "manifest.csv", "--out", "out", *BATCH, "--mean", "1,2,3"],
            "every model of this run brings its own",
        ),
        (
            ["batch", "manifest.csv", "--out", "out", *BATCH, "--std", "x"],
            "three numbers separated by commas",
        ),
        (
            ["batch", "manifest.csv", "--out", "out", "--model", "demo", "--detector", "retinaface=file"],
            "state dict",
        ),
    ],
)
def test_what_the_user_did_wrong_is_one_sentence_and_status_2(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "manifest.csv").write_text("path,identity\na.png,x\n")
    monkeypatch.setattr(sys, "argv", ["leamfast", *args])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert captured.out == ""
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "manifest.csv"]  # nothing is left


def test_tables_of_a_run_without_region_masks(faces, tmp_path):
    run_json("batch", faces, "--out", tmp_path / "out", *BATCH, "--parser", "none")
    found = run_json("analyze", tmp_path / "out")
    assert found["regions"] is None
    assert Path(found["agreement"]).is_file()
    told = CliRunner().invoke(app, ["analyze", str(tmp_path / "out")], catch_exceptions=False)
    assert "has no region masks, and so no tables of regions: `leamfast batch --parser` makes" in told.output


def test_a_full_disk_is_one_sentence_and_status_1(monkeypatch, capsys, faces, tmp_path):
    """A file size limit stands in for a full disk: the write really fails, half-way."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "sys.argv = ['leamfast', *sys.argv[1:]]\n"
        "from leamfast.cli.main import main\nmain()\n"
    )
    command = [sys.executable, "-c", code, "batch", faces, "--out", tmp_path / "out", *BATCH]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert "no room for part-00000.h5" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out/shards").iterdir())


def environment() -> dict[str, str]:
    path = os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "bench"))
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "100"}


def test_ctrl_c_stops_cleanly_and_resume_goes_on(faces, finished_run, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, ROOT / "cli.py", "batch", faces, "--out", out, *BATCH, "--shard-images", "4"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    while process.poll() is None and not list(out.glob("shards/part-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "go on with --resume" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert 1 <= len(list(out.glob("shards/part-*"))) < 12
    result = invoke("batch", faces, "--out", out, *BATCH, "--shard-images", 4, "--resume")
    assert result.exit_code == 0, result.output
    assert invoke("verify", out).exit_code == 0

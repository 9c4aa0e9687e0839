"""The registry and its command, methods of the user's and of peers, controls, and scores that are kept."""

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from leamfast import RequestError
from leamfast.cli.main import app, main
from leamfast.models.demo import demo_network
from leamfast_bench import registry
from leamfast_bench.registry import Options
from leamfast_bench.truth import benchmark
from leamfast_bench.truth.benchmark import FAITHFUL, Form, score_model
from leamfast_bench.truth.methods import Query, Variant
from leamfast_bench.truth.models import SHIPPED, find_models, model_file
from leamfast_bench.truth.peers import missing, user_method

FORM = Form(people=4, images=3, draws=1, variants=(), free_variants=(), control_variants=(), peers=())
CENTRE = """
import torch

def centre(model, images, references):
    size = images.shape[-1]
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    bump = torch.exp(-((axis[:, None] ** 2 + axis**2) / (2 * (size / 4) ** 2)))
    return bump.expand(len(images), -1, -1)
"""


def write_model(folder: Path, name: str, weights: dict[str, torch.Tensor] | None = None) -> None:
    """A file whose header says what its name says."""
    region, kind, seed = name.split("-")
    said = {"region": region, "kind": kind, "seed": seed}
    save_file(weights or {"weight": torch.zeros(1)}, str(folder / model_file(region, kind, int(seed))), said)


def refused(monkeypatch, capsys, *args: str) -> str:
    """What a command says that ends with status 2."""
    monkeypatch.setattr(sys, "argv", ["leamfast", *args])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert captured.out == ""
    return captured.err


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Writes a module of the user's into the folder where the command is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_methods", raising=False)

    def write(code: str) -> None:
        (tmp_path / "own_methods.py").write_text(code)

    yield write
    sys.modules.pop("own_methods", None)


def test_without_a_suite_all_are_listed():
    assert registry.names() == ("overhead", "truth")
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
        (["speed"], "benchmark must be one of overhead, truth, got 'speed'"),
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
            "--method own_methods:centre cannot be had: No module named 'own_methods'",
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
        (
            ["overhead", "--models", "nowhere"],
            "--models means nothing to the benchmark overhead: leave it out",
        ),
        (["overhead", "--workers", "2"], "--workers means nothing to the benchmark overhead: leave it out"),
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


def test_a_method_of_the_users_is_scored_as_the_peers_are(own_module):
    own_module(CENTRE)
    form = replace(FORM, peers=("centre prior", "random"))
    found = score_model(find_models(None)[0], (), form, own=user_method("own_methods:centre", True))
    assert found["unreported"] == ""
    methods = {score["method"]: score for score in found["scores"]}
    assert list(methods) == ["centre prior", "random", "own_methods:centre"]
    mine, peer = methods["own_methods:centre"], methods["centre prior"]
    assert {**mine, "method": ""} == {**peer, "method": ""}
    assert mine["over"]["5"] > methods["random"]["over"]["5"]
    assert (mine["model"], mine["kind"], mine["cells"], mine["n"]) == ("own", "input", 112, 12)


def test_a_method_of_the_users_may_name_its_maps(own_module):
    own_module(
        "import torch\n"
        "def both(model, images, references):\n"
        "    assert model.embed(images[:1]).shape[1] == references.shape[1]\n"
        "    assert torch.allclose(references.norm(dim=1), torch.ones(len(images)))\n"
        "    ones = torch.ones(len(images), 14, 14, dtype=torch.float64)\n"
        "    return {'ones': ones, 'zeros': 0 * ones}\n"
    )
    found = score_model(find_models(None)[0], (), FORM, own=user_method("own_methods:both", True))
    ones, zeros = found["scores"]
    assert [(s["method"], s["map"], s["cells"]) for s in (ones, zeros)] == [
        ("own_methods:both", "ones", 14),
        ("own_methods:both", "zeros", 14),
    ]
    assert (ones["area"], ones["empty"], zeros["area"], zeros["empty"]) == (0.5, 0, 0.5, 1)
    assert ones["over"]["5"] == zeros["over"]["5"] == zeros["drop"] == zeros["pointing"] == 0


def test_a_map_that_finds_no_part_does_not_rank_the_region_first(own_module):
    own_module("def zeros(model, images, references):\n    return 0 * images[:, 0]\n")
    found = score_model(find_models(None)[0], (), FORM, own=user_method("own_methods:zeros", True))
    assert found["scores"][0]["rank"] > 1


@pytest.mark.parametrize(
    "returned", ["images", "images[:-1, 0]", "images[0, 0]", "images[:, 0].numpy()", "None", "{'a': images}"]
)
def test_maps_of_another_shape_are_refused(own_module, returned):
    own_module(f"def wrong(model, images, references):\n    return {returned}\n")
    images = torch.zeros(3, 3, 8, 8)
    query = Query(SimpleNamespace(), images, torch.zeros(3, 4), torch.zeros(3, 1, 4))
    with pytest.raises(RequestError, match=r"own_methods:wrong must return tensors of shape \(N, h, w\)"):
        list(user_method("own_methods:wrong", True)(query))


@pytest.mark.parametrize("spec", ["own_methods:right", "elsewhere:right"])
def test_a_method_that_is_not_there(own_module, spec):
    own_module("")
    with pytest.raises(RequestError, match=f"--method {spec} cannot be had"):
        user_method(spec, True)


def test_the_users_code_does_not_run_untrusted(own_module):
    own_module("raise SystemExit(7)\n")
    with pytest.raises(RequestError, match="--trust-code"):
        user_method("own_methods:any", False)


def test_references_of_every_policy():
    """Two references for each of twelve pictures: maps of each, their mean, or one of their mean."""
    policies = ("mean", "each", "mean-map")
    variants = tuple(Variant("similarity", "positive", "receptive", policy) for policy in policies)
    found = score_model(find_models(None)[0], (), replace(FORM, draws=0, variants=variants))
    at = {score["method"]: score for score in found["scores"] if score["map"] == "layer2.0.prelu"}
    assert [at[variant.name]["n"] for variant in variants] == [12, 24, 12]
    assert all(at[variant.name]["over"]["5"] > 8 for variant in variants)
    assert all("drop" not in score for score in found["scores"])


def test_controls_are_asked_about_the_same_pictures():
    nose, eyes = find_models(None)
    found = score_model(nose, (eyes,), replace(FORM, people=3, control_variants=(FAITHFUL,)))
    assert list(dict.fromkeys(score["model"] for score in found["scores"])) == ["untrained", "eyes"]
    assert {score["method"] for score in found["scores"]} == {FAITHFUL.name}
    assert all(score["n"] == 9 and "drop" not in score for score in found["scores"] if "over" in score)


@pytest.fixture
def scored(monkeypatch) -> list[tuple]:
    """`score_model` gives no scores, and what it was asked for is kept."""
    asked = []

    def fake(model, cross, form, device="cpu", own=None):
        asked.append((model, cross, form, own))
        about = {"region": model.region, "kind": model.kind, "seed": model.seed, "call": len(asked)}
        return {**about, "scores": [], "unreported": ""}

    monkeypatch.setattr(benchmark, "score_model", fake)
    return asked


def silent(text: str) -> None:
    pass


def test_a_peer_that_is_not_installed_is_named(monkeypatch, scored):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "leamfast_bench.truth.peers.importlib.util.find_spec",
        lambda name, *more: None if name == "captum" else found(name, *more),
    )
    notes: list[str] = []
    reason = "captum is not installed: pip install captum"
    assert missing("captum") == reason
    assert missing("centre prior") == missing("random") == ""
    results = benchmark.run(Options(small=True, note=notes.append))
    assert results["left_out"]["captum"] == reason
    assert f"left out of the comparison: {reason}" in notes
    assert all("captum" not in form.peers for _, _, form, _ in scored)
    assert {"centre prior", "random"} <= set(scored[0][2].peers)


def test_scores_are_kept_beside_the_models(monkeypatch, tmp_path, scored, own_module):
    models = tmp_path / "models"
    shutil.copytree(SHIPPED, models)
    notes: list[str] = []

    def run(**options) -> dict:
        before = len(scored)
        options = {"small": True, "folder": models, "note": notes.append, **options}
        results = benchmark.run(Options(**options))
        return {"computed": len(scored) - before, "calls": [model["call"] for model in results["models"]]}

    assert run() == {"computed": 2, "calls": [1, 2]}
    assert notes == ["nose-plain-0: 0 scores", "eyes-plain-0: 0 scores"]
    notes.clear()
    assert run() == {"computed": 0, "calls": [1, 2]}
    assert notes == ["nose-plain-0: 0 scores from before", "eyes-plain-0: 0 scores from before"]
    assert run(small=False) == {"computed": 2, "calls": [3, 4]}  # another form
    monkeypatch.setattr(benchmark, "SMALL", replace(benchmark.SMALL, people=11))
    assert run() == {"computed": 2, "calls": [5, 6]}
    own_module(CENTRE)
    kept = sorted(models.glob("*.scores.json"))
    assert run(method="own_methods:centre", trust_code=True)["computed"] == 2  # a user's is not kept
    assert sorted(models.iterdir()) == sorted([*kept, *models.glob("*.safetensors")])
    assert run() == {"computed": 0, "calls": [5, 6]}
    write_model(models, "eyes-plain-0")  # other weights of a model, which is the other one's control too
    assert run()["computed"] == 2


@pytest.mark.slow
def test_processes_share_the_work(tmp_path):
    """Untrained models, of which no more than the area under their curve is said."""
    found = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        for name in ("nose-plain-0", "eyes-plain-0"):
            torch.manual_seed(0)
            write_model(folder, name, demo_network().state_dict())
        found.append(benchmark.run(Options(small=True, workers=workers, folder=folder)))
        assert len(list(folder.glob("*.scores.json"))) == 2
    assert found[0] == found[1]
    assert [model["region"] for model in found[1]["models"]] == ["nose", "eyes"]
    assert all("below 0.95" in model["unreported"] for model in found[1]["models"])


def test_what_ships_is_scored_anew(scored):
    for _ in range(2):
        benchmark.run(Options(small=True, note=silent))
    assert len(scored) == 4
    assert not list(SHIPPED.glob("*.json"))


def test_models_are_compared_with_those_of_their_seed_and_kind(tmp_path, scored):
    names = ["nose-plain-0", "nose-free-0", "eyes-plain-0", "eyes-plain-1", "brows-free-0", "all-plain-0"]
    for name in names:
        write_model(tmp_path, name)
    benchmark.run(Options(small=True, folder=tmp_path, note=silent))
    assert {model.name: {m.name for m in cross} for model, cross, _, _ in scored} == {
        "nose-plain-0": {"eyes-plain-0", "all-plain-0"},
        "nose-free-0": {"brows-free-0", "all-plain-0"},
        "eyes-plain-0": {"nose-plain-0", "all-plain-0"},
        "eyes-plain-1": set(),
        "brows-free-0": {"nose-free-0", "all-plain-0"},
    }

"""The registry and its command, methods of the user's, controls, and scores that are kept."""

import json
import shutil
import subprocess
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
from leamfast.models.weights import file_sha256
from leamfast_bench import registry
from leamfast_bench.registry import Options
from leamfast_bench.truth import benchmark
from leamfast_bench.truth.benchmark import Form, score_method, score_model
from leamfast_bench.truth.methods import FAITHFUL, PAPER, Maps, Query, Variant
from leamfast_bench.truth.models import SHIPPED, PlantedModel, find_models, model_file
from leamfast_bench.truth.peers import PRIORS, missing, user_method
from leamfast_bench.truth.tables import checks, tables

FORM = Form(people=4, images=3, draws=1, variants=(), free_variants=(), packages=())
EACH, MEAN_MAP = (Variant("similarity", "positive", "receptive", policy) for policy in ("each", "mean-map"))
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
        (["overhead", "--device", "mps"], "--device must be cpu, cuda or cuda:N, got 'mps'"),
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


def test_a_method_of_the_users_is_scored_as_the_peers_are(own_module):
    own_module(CENTRE)
    nose = find_models(None)[0]
    mine = score_method(nose, user_method("own_methods:centre", True), FORM)
    peer = score_method(nose, PRIORS["centre prior"], FORM)
    assert [score["model"] for score in mine] == ["own", "untrained"]
    assert {score["method"] for score in mine} == {"own_methods:centre"}
    assert [{**score, "method": "centre prior"} for score in mine] == peer
    own, untrained = mine
    assert (own["kind"], own["cells"], own["n"]) == ("input", 112, 12)
    assert {"drop", "shifted", "on_face"} <= own.keys()
    assert not {"drop", "shifted", "on_face"} & untrained.keys()
    assert own["over"] == untrained["over"]  # the maps know no model
    assert own["over"]["5"] > score_method(nose, PRIORS["random"], FORM)[0]["over"]["5"]


def test_a_method_of_the_users_may_name_its_maps(own_module):
    own_module(
        "import torch\n"
        "def both(model, images, references):\n"
        "    assert model.embed(images[:1]).shape[1] == references.shape[1]\n"
        "    assert torch.allclose(references.norm(dim=1), torch.ones(len(images)))\n"
        "    ones = torch.ones(len(images), 14, 14, dtype=torch.float64)\n"
        "    return {'ones': ones, 'zeros': 0 * ones}\n"
    )
    found = score_method(find_models(None)[0], user_method("own_methods:both", True), FORM)
    assert [(s["model"], s["method"], s["map"], s["cells"]) for s in found] == [
        (model, "own_methods:both", name, 14) for model in ("own", "untrained") for name in ("ones", "zeros")
    ]
    ones, zeros, *_ = found
    assert (ones["area"], ones["empty"], zeros["area"], zeros["empty"]) == (0.5, 0, 0.5, 1)
    assert ones["over"]["5"] == zeros["over"]["5"] == zeros["drop"] == zeros["pointing"] == 0
    assert zeros["shifted"] == zeros["on_face"] == 0
    assert zeros["rank"] > 1  # a map that finds no part does not rank the region first


@pytest.mark.parametrize(
    "returned", ["images", "images[:-1, 0]", "images[0, 0]", "images[:, 0].numpy()", "None", "{'a': images}"]
)
def test_maps_of_another_shape_are_refused(own_module, returned):
    own_module(f"def wrong(model, images, references):\n    return {returned}\n")
    images = torch.zeros(3, 3, 8, 8)
    query = Query(SimpleNamespace(), images, torch.zeros(3, 4), torch.zeros(3, 1, 4))
    with pytest.raises(RequestError, match=r"own_methods:wrong must return tensors of shape \(N, h, w\)"):
        list(user_method("own_methods:wrong", True)(query))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("images[:, 0] / 0", "must return maps that are finite in float32"),
        ("{'a': images[:, 0], 'b': images[:, 0].log()}", "must return maps that are finite in float32"),
        ("images[:, 0].double() * 1e300", "must return maps that are finite in float32"),
        ("images[:, 0] * 1j", "must return real maps with cells, got torch.complex64 (3, 8, 8)"),
        ("images[:, 0, :0]", "must return real maps with cells, got torch.float32 (3, 0, 8)"),
        ("{}", "must return maps, got none"),
        ("{}['here']", "failed: KeyError: 'here'"),
        ("model.embed(images)", "failed: AttributeError: 'types.SimpleNamespace' object has no attribute"),
        ("1 / 0", "failed: ZeroDivisionError: division by zero"),
    ],
)
def test_what_goes_wrong_in_a_method_of_the_users_is_one_sentence(own_module, body, sentence):
    own_module(f"def wrong(model, images, references):\n    return {body}\n")
    query = Query(SimpleNamespace(), -torch.ones(3, 3, 8, 8), torch.zeros(3, 4), torch.zeros(3, 1, 4))
    with pytest.raises(RequestError) as refused:
        list(user_method("own_methods:wrong", True)(query))
    assert str(refused.value).startswith(f"--method own_methods:wrong {sentence}")


@pytest.mark.parametrize("spec", ["own_methods:right", "elsewhere:right"])
def test_a_method_that_is_not_there(own_module, spec):
    own_module("")
    with pytest.raises(RequestError, match=f"--method {spec} cannot be had"):
        user_method(spec, True)


def test_a_module_of_the_users_that_cannot_be_imported(own_module):
    own_module("raise ValueError('no such thing')\n")
    with pytest.raises(
        RequestError, match=r"--method own_methods:a cannot be had: ValueError: no such thing"
    ):
        user_method("own_methods:a", True)


def test_the_users_code_does_not_run_untrusted(own_module):
    own_module("raise SystemExit(7)\n")
    with pytest.raises(RequestError, match="--trust-code"):
        user_method("own_methods:any", False)


@pytest.fixture(scope="module")
def _one_thread_for_all():
    """Fixtures of a module come before `_one_thread`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(_one_thread_for_all, tmp_path_factory) -> dict:
    """A small scoring, with a model of eyes and one to which all pictures are one. Not to be changed."""
    folder = tmp_path_factory.mktemp("lips")
    torch.manual_seed(0)
    weights = demo_network().state_dict()
    last = list(weights)[-1].rpartition(".")[0]
    for name, tensor in weights.items():
        if name.startswith(f"{last}.") and name.endswith("weight"):
            weights[name] = torch.zeros_like(tensor)
        if name.startswith(f"{last}.") and name.endswith("bias"):
            weights[name] = torch.ones_like(tensor)
    write_model(folder, "lips-plain-0", weights)
    nose, eyes = find_models(None)
    return score_model(nose, (eyes, *find_models(folder)), replace(FORM, people=3, variants=(EACH, MEAN_MAP)))


def test_what_is_said_of_a_model(whole):
    nose = find_models(None)[0]
    assert (whole["region"], whole["kind"], whole["seed"], whole["unreported"]) == ("nose", "plain", 0, "")
    assert (whole["people"], whole["images"]) == (3, 9)
    assert whole["weights"] == file_sha256(SHIPPED / "nose-plain-0.safetensors")
    assert whole["header"] == dict(nose.header)
    assert whole["header"]["region"] == "nose"
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole


def test_every_model_is_asked_for_its_maps(whole):
    asked = {(score["model"], score["method"]) for score in whole["scores"] if "over" in score}
    presets = {PAPER.name, FAITHFUL.name}
    assert asked == {
        *(("own", name) for name in presets | {EACH.name, MEAN_MAP.name} | PRIORS.keys()),
        *((model, name) for model in ("untrained", "eyes") for name in presets),
    }


def test_occlusion_is_for_the_models_own_maps_and_its_controls_for_presets_and_priors(whole):
    controls = {"shifted", "on_face"}
    for score in whole["scores"]:
        if "over" not in score:
            continue
        kept = score.keys() & {"drop", "drop_low", "drop_high", *controls}
        if score["model"] != "own":
            assert kept == set(), score
        elif score["method"] in (EACH.name, MEAN_MAP.name):
            assert kept == {"drop", "drop_low", "drop_high"}, score
        else:
            assert kept == {"drop", "drop_low", "drop_high", *controls}, score
            assert score["drop_low"] <= score["drop"] <= score["drop_high"]


def test_references_of_every_policy(whole):
    """Two references for each of nine pictures: maps of each, their mean, or one of their mean."""
    own = [score for score in whole["scores"] if score["model"] == "own"]
    at = {score["method"]: score for score in own if score["map"] == "layer2.0.prelu"}
    variants = (FAITHFUL, EACH, MEAN_MAP)
    assert [at[variant.name]["n"] for variant in variants] == [9, 18, 9]
    assert all(at[variant.name]["over"]["5"] > 8 for variant in variants)


def test_controls_are_asked_about_the_same_pictures(whole):
    scores = [score for score in whole["scores"] if score["model"] in ("untrained", "eyes")]
    assert all(score["n"] == 9 for score in scores if "over" in score)
    fused = {
        score["model"]: score["over"]["5"]
        for score in whole["scores"]
        if score["method"] == FAITHFUL.name and score["map"] == "fused activations"
    }
    assert list(fused) == ["own", "untrained", "eyes"]
    assert max(fused["untrained"], fused["eyes"]) < fused["own"] / 3


def test_a_control_that_cannot_be_asked_says_why_and_the_others_are_scored(whole):
    (lips,) = (score for score in whole["scores"] if score["model"] == "lips")
    assert lips.keys() == {"model", "method", "map", "unreported"}
    assert (lips["method"], lips["map"]) == ("", "")
    assert "reference" in lips["unreported"]
    (check,) = checks({"models": [whole]})
    assert (check["model"], check["cells"], check["unreported"]) == ("nose-plain-0", [56, 28, 14], "")
    for table in tables({"models": [whole], "checks": [check]}):
        assert all(len(row) == len(table.columns) for row in table.rows)


@pytest.mark.parametrize(("kind", "further"), [("plain", {EACH.name}), ("free", {MEAN_MAP.name})])
def test_presets_and_packages_are_asked_of_an_untrained_model_too(monkeypatch, kind, further):
    asked: list[tuple[str, str]] = []

    def leam(query: Query, variants: tuple[Variant, ...], taps: object):
        asked.extend((query.model.name, variant.name) for variant in variants)
        return iter(())

    def package(query: Query):
        asked.append((query.model.name, "captum"))
        rows = torch.arange(len(query.images))
        yield Maps("a peer", "", "input", 112, torch.ones(len(rows), 112, 112), None, rows)

    monkeypatch.setattr(benchmark, "leam_maps", leam)
    monkeypatch.setattr(benchmark, "PRIORS", {})
    monkeypatch.setattr(benchmark, "PACKAGES", {"captum": package, "pytorch_grad_cam": None})
    monkeypatch.setattr(benchmark, "LEARNT", 0.0)
    nose, eyes = find_models(None)
    model = PlantedModel("nose", kind, 0, nose.weights)
    form = replace(FORM, variants=(EACH,), free_variants=(MEAN_MAP,), packages=("captum",))
    found = score_model(model, (eyes,), form)
    presets = {PAPER.name, FAITHFUL.name}
    wanted = {(model.name, name) for name in {*presets, "captum", *further}}
    wanted |= {("demo", name) for name in {*presets, "captum"}}
    assert set(asked) == wanted | {(eyes.name, name) for name in presets}
    assert len(asked) == len(set(asked))
    own, untrained = found["scores"]
    assert (own["model"], untrained["model"]) == ("own", "untrained")
    assert ("on_face" in own, "drop" in untrained) == (True, False)


@pytest.fixture
def scored(monkeypatch) -> list[tuple]:
    """`score_model` gives no scores, and what it was asked for is kept."""
    asked = []

    def fake(model, cross, form, device="cpu"):
        asked.append((model, cross, form))
        about = {"region": model.region, "kind": model.kind, "seed": model.seed, "call": len(asked)}
        return {**about, "scores": [], "unreported": ""}

    monkeypatch.setattr(benchmark, "score_model", fake)
    return asked


def silent(text: str) -> None:
    pass


@pytest.mark.parametrize(
    ("package", "other"), [("captum", "pytorch_grad_cam"), ("pytorch_grad_cam", "captum")]
)
def test_a_package_that_cannot_be_imported_is_named(monkeypatch, scored, package, other):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, other, SimpleNamespace())
    notes: list[str] = []
    reason = missing(package)
    assert reason.startswith(f"{package} cannot be imported (")
    assert "pip install 'leamfast[bench]'" in reason
    assert missing(other) == ""
    results = benchmark.run(Options(small=True, note=notes.append))
    assert results["left_out"] == {package: reason}
    assert f"left out of the comparison: {reason}" in notes
    assert [form.packages for _, _, form in scored] == [(other,)] * 2


def test_a_package_that_is_there_but_broken_is_left_out(monkeypatch):
    def broken(name: str):
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr("leamfast_bench.truth.peers.importlib.import_module", broken)
    assert missing("captum").startswith("captum cannot be imported (libGL.so.1: cannot open")


def test_scores_are_kept_beside_the_models(monkeypatch, tmp_path, scored):
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
    write_model(models, "eyes-plain-0")  # other weights of a model, which is the other one's control too
    assert run()["computed"] == 2


def test_a_method_of_the_users_is_scored_on_top_of_kept_scores(monkeypatch, tmp_path, scored, own_module):
    own_module(CENTRE)
    models = tmp_path / "models"
    shutil.copytree(SHIPPED, models)
    mine = []

    def score(model, method, form, device):
        mine.append((model.name, form, device))
        return [{"model": "own", "method": "mine", "map": model.name}]

    monkeypatch.setattr(benchmark, "score_method", score)

    def run(**options) -> list[list[dict]]:
        found = benchmark.run(Options(small=True, folder=models, note=silent, **options))
        return [model["scores"] for model in found["models"]]

    assert run() == [[], []]
    kept = {path: path.read_bytes() for path in models.iterdir()}
    for _ in range(2):  # twice: nothing of the user's stays
        found = run(method="own_methods:centre", trust_code=True)
        assert [[row["map"] for row in rows] for rows in found] == [["nose-plain-0"], ["eyes-plain-0"]]
    assert (len(scored), len(mine)) == (2, 4)
    assert {(form.people, device) for _, form, device in mine} == {(benchmark.SMALL.people, "cpu")}
    assert {path: path.read_bytes() for path in models.iterdir()} == kept
    assert run() == [[], []]


def test_a_method_of_the_users_is_not_judged_where_the_truth_is_not_known(monkeypatch, own_module):
    own_module(CENTRE)
    about = {"region": "nose", "kind": "plain", "seed": 0, "scores": [], "unreported": "did not learn"}
    monkeypatch.setattr(benchmark, "score_model", lambda *args: about)
    monkeypatch.setattr(benchmark, "score_method", None)
    found = benchmark.run(Options(small=True, note=silent, method="own_methods:centre", trust_code=True))
    assert [model["scores"] for model in found["models"]] == [[], []]


@pytest.mark.slow
def test_processes_share_the_work(tmp_path):
    """Untrained models, of which no more than the area under their curve is said."""
    models, found = tmp_path / "models", []
    models.mkdir()
    for name in ("nose-plain-0", "eyes-plain-0"):
        torch.manual_seed(0)
        write_model(models, name, demo_network().state_dict())
    for workers in (1, 2):
        # Copied, because safetensors writes a header in any order: the same model, another hash.
        folder = shutil.copytree(models, tmp_path / str(workers))
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
    assert {model.name: {m.name for m in cross} for model, cross, _ in scored} == {
        "nose-plain-0": {"eyes-plain-0", "all-plain-0"},
        "nose-free-0": {"brows-free-0", "all-plain-0"},
        "eyes-plain-0": {"nose-plain-0", "all-plain-0"},
        "eyes-plain-1": set(),
        "brows-free-0": {"nose-free-0", "all-plain-0"},
    }

"""What is scored on which model, controls, and scores that are kept."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from leamfast.models.demo import demo_network
from leamfast.models.weights import file_sha256
from leamfast_bench.registry import Options
from leamfast_bench.truth import benchmark
from leamfast_bench.truth.benchmark import Form, score_model
from leamfast_bench.truth.methods import FAITHFUL, PAPER, Maps, Query, Variant
from leamfast_bench.truth.models import SHIPPED, PlantedModel, find_models, model_file
from leamfast_bench.truth.peers import PRIORS, missing
from leamfast_bench.truth.tables import checks, tables
from tests.bench.conftest import CENTRE

FORM = Form(people=4, images=3, draws=1, variants=(), free_variants=(), packages=())
EACH, MEAN_MAP = (Variant("similarity", "positive", "receptive", policy) for policy in ("each", "mean-map"))


def write_model(folder: Path, name: str, weights: dict[str, torch.Tensor] | None = None) -> None:
    """A file whose header says what its name says."""
    region, kind, seed = name.split("-")
    said = {"region": region, "kind": kind, "seed": seed}
    save_file(weights or {"weight": torch.zeros(1)}, str(folder / model_file(region, kind, int(seed))), said)


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

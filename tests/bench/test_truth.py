"""`leamfast bench truth --small` on the models that ship: the bars hold, and all is told."""

import datetime
import hashlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from leamfast.cli.output import print_table
from leamfast_bench.registry import registered
from leamfast_bench.truth.benchmark import LEARNT, SMALL
from leamfast_bench.truth.methods import FAITHFUL, PAPER
from leamfast_bench.truth.models import SHIPPED
from leamfast_bench.truth.peers import CAM_TAPS, PACKAGES, PRIORS, missing
from leamfast_bench.truth.scores import CURVE, PERCENTS
from leamfast_bench.truth.tables import BARS, NOISE, checks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ACTIVATIONS = ["layer1.0.prelu", "layer2.0.prelu", "layer3.0.prelu"]  # inside blocks, 56, 28 and 14 cells


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> tuple[dict, dict, str]:
    """What the one run prints, what it writes, and the commit at its start."""
    folder = tmp_path_factory.mktemp("truth")
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    path = os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "bench"))
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "bench", "truth", "--small", "--json", "--out", "truth.json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    assert "nose-plain-0: " in done.stderr
    return json.loads(done.stdout), json.loads((folder / "truth.json").read_text()), head


@pytest.fixture(scope="module")
def results(printed) -> dict:
    return printed[0]["results"]


def scores(results: dict, region: str, model: str = "own", **fields: object) -> list[dict]:
    """Scores on the set of a planted region that have these fields."""
    (planted,) = (m for m in results["models"] if m["region"] == region)
    wanted = {"model": model, **fields}
    return [s for s in planted["scores"] if all(s.get(key) == value for key, value in wanted.items())]


def test_where_the_results_come_from(printed):
    found, written, head = printed
    assert found == written
    assert found.keys() == {"metadata", "results"}
    assert found["results"]["checks"] == checks(found["results"])
    said = found["metadata"]
    assert (said["benchmark"], said["small"]) == ("truth", True)
    assert (said["threads"], said["workers"]) == (1, 1)
    assert said["cores"] == os.cpu_count()
    assert said["device"]
    for package in ("torch", "numpy", "leamfast"):
        assert said["versions"][package] == metadata.version(package)
    assert said["versions"]["grad-cam"] == "absent" or said["versions"]["grad-cam"][0].isdigit()
    assert datetime.datetime.fromisoformat(said["date"]).tzinfo is not None
    assert said["commit"].removesuffix("+") == (head or "unknown")


def test_the_models_learnt_and_nothing_is_held_back(results):
    named = [(model["region"], model["kind"], model["seed"]) for model in results["models"]]
    assert named == [("nose", "plain", 0), ("eyes", "plain", 0)]
    assert (tuple(results["percents"]), tuple(results["curve"])) == (PERCENTS, CURVE)
    for planted in results["models"]:
        assert planted["unreported"] == ""
        assert planted["auc"] >= LEARNT
        assert (planted["people"], planted["images"]) == (SMALL.people, SMALL.people * SMALL.images)
        file = SHIPPED / f"{planted['region']}-plain-0.safetensors"
        assert planted["weights"] == hashlib.sha256(file.read_bytes()).hexdigest()
        said = planted["header"]
        assert (said["region"], said["kind"], said["seed"]) == (planted["region"], "plain", "0")
        assert float(said["auc"]) >= LEARNT
        for score in planted["scores"]:
            if "unreported" in score:
                assert "too small here" in score["unreported"]
                assert not {"over", "rank", "area", "drop", "pointing"} & score.keys()
            else:
                assert score["n"] == planted["images"]
                assert 1 <= score["rank"] <= 7
                for name in ("drop", "drop_low", "drop_high", "shifted", "on_face"):
                    assert (name in score) == (score["model"] == "own")
                assert all(0 <= score[name] <= 1 for name in ("pointing", "area", "empty"))
                assert score["over_low"] <= score["over"]["5"] <= score["over_high"]


def test_every_peer_is_asked_or_said_to_be_missing(results):
    absent = {name: reason for name in PACKAGES if (reason := missing(name))}
    assert results["left_out"] == absent
    presets, packages = {PAPER.name, FAITHFUL.name}, set()
    if "captum" not in absent:
        packages |= {f"{name} (captum)" for name in ("gradient x input", "integrated gradients", "occlusion")}
    if "pytorch_grad_cam" not in absent:
        packages |= {"LayerCAM (grad-cam)", "Grad-CAM (grad-cam)"}
    for region, other in (("nose", "eyes"), ("eyes", "nose")):
        assert {s["method"] for s in scores(results, region)} == presets | packages | PRIORS.keys()
        assert {s["method"] for s in scores(results, region, "untrained")} == presets | packages
        assert {s["method"] for s in scores(results, region, other)} == presets


@pytest.mark.parametrize("region", ["nose", "eyes"])
def test_presets_are_compared_with_occlusion_elsewhere_on_the_face(results, region):
    """The face holds more of the identity than the background, and the planted region the most."""
    for preset in (PAPER, FAITHFUL):
        found = [s for s in scores(results, region, method=preset.name) if "over" in s]
        assert found
        assert all("on_face" in score for score in found)
    (score,) = scores(results, region, method=FAITHFUL.name, map="fused activations")
    assert score["shifted"] < score["on_face"] < score["drop"]


@pytest.mark.parametrize("region", ["nose", "eyes"])
def test_class_activation_maps_are_of_the_grid_of_their_tap(results, region):
    if "pytorch_grad_cam" in results["left_out"]:
        pytest.skip("needs grad-cam")
    for tap in CAM_TAPS:
        (ours,) = scores(results, region, method=FAITHFUL.name, map=tap)
        for name in ("LayerCAM (grad-cam)", "Grad-CAM (grad-cam)"):
            (theirs,) = scores(results, region, method=name, map=tap)
            assert (theirs["kind"], theirs["cells"]) == (ours["kind"], ours["cells"])
            assert ("over" in theirs) == ("over" in ours)


@pytest.mark.parametrize("region", ["nose", "eyes"])
def test_the_bars_hold(results, region):
    (check,) = (c for c in results["checks"] if c["model"] == f"{region}-plain-0")
    assert (check["holds"], check["unreported"]) == (True, "")
    assert check["over"] >= BARS["over"] == 8
    assert check["rank"] == BARS["rank"] == 1
    assert check["untrained"] <= BARS["untrained"] == 3
    assert check["drop"] >= BARS["drop"] == 3


@pytest.mark.parametrize("region", ["nose", "eyes"])
def test_a_check_is_the_worst_of_the_activations_inside_blocks(results, region):
    (check,) = (c for c in results["checks"] if c["model"] == f"{region}-plain-0")
    own, untrained = (
        [scores(results, region, model, method=FAITHFUL.name, map=tap)[0] for tap in ACTIVATIONS]
        for model in ("own", "untrained")
    )
    assert [score["cells"] for score in own] == check["cells"] == [56, 28, 14]
    assert check["over"] == min(score["over"]["5"] for score in own)
    assert check["untrained"] == max(score["over"]["5"] for score in untrained)
    assert check["drop"] == min(score["drop"] / max(score["shifted"], NOISE) for score in own)
    assert all(score["drop_low"] > 0 for score in own)


def test_the_faithful_preset_beats_the_papers_where_cells_are_coarse(results):
    """Outputs of blocks at 7 cells, of which a plain resize puts some half a cell off."""
    (paper,) = scores(results, "nose", method=PAPER.name, kind="block", cells=7)
    (faithful,) = scores(results, "nose", method=FAITHFUL.name, kind="block", cells=7)
    assert faithful["over"]["5"] > paper["over"]["5"]
    assert faithful["area"] > paper["area"]
    assert faithful["drop"] > paper["drop"]
    assert faithful["rank"] == 1


def test_eyes_are_too_small_for_cells_of_16_pixels(results):
    coarse = [s for s in scores(results, "eyes", method=FAITHFUL.name) if s["cells"] <= 7]
    assert coarse
    assert all(score["unreported"].startswith("eyes is too small here") for score in coarse)


@pytest.mark.parametrize("region", ["nose", "eyes"])
def test_random_maps_are_right_as_often_as_the_region_is_large(results, region):
    (score,) = scores(results, region, method="random")
    assert 0.7 <= score["over"]["5"] <= 1.4
    assert score["area"] == pytest.approx(0.5, abs=0.02)
    assert abs(score["drop"] - score["shifted"]) < 0.05


@pytest.mark.parametrize(("region", "other"), [("nose", "eyes"), ("eyes", "nose")])
def test_a_model_of_another_region_does_not_find_this_one(results, region, other):
    for tap in ACTIVATIONS:
        (own,) = scores(results, region, method=FAITHFUL.name, map=tap)
        (cross,) = scores(results, region, other, method=FAITHFUL.name, map=tap)
        assert cross["over"]["5"] < own["over"]["5"] / 3


def test_every_table_can_be_printed(results, capsys):
    found = registered("truth").tables(results)
    assert [table.name for table in found] == ["models", "variants", "taps", "methods", "controls", "checks"]
    for table in found:
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)
        print_table(list(table.columns), [list(row) for row in table.rows], table.title)
        printed = " ".join(capsys.readouterr().out.split())
        assert " ".join(table.title.split()) in printed
    models, variants, taps, methods, controls, bars = found
    assert (
        [row[0] for row in models.rows]
        == [row[0] for row in controls.rows]
        == ["nose-plain-0", "eyes-plain-0"]
    )
    assert [row[0] for row in variants.rows] == [v.name.removeprefix("LEAM ") for v in (PAPER, FAITHFUL)]
    assert set(ACTIVATIONS) < {row[0] for row in taps.rows}
    named = {row[0] for row in methods.rows}
    assert {*PRIORS, "LEAM paper layer2.0.prelu", "LEAM faithful fused activations"} <= named
    assert [row[-1] for row in bars.rows] == ["yes", "yes"]

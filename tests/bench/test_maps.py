"""`leamfast bench maps` from end to end: a tiny form of it, and the small one as users run it."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from leamfast.cli.main import app
from leamfast.leam.backends import BACKENDS
from leamfast_bench.maps import benchmark, ours
from leamfast_bench.maps.benchmark import EVERYONE, FULL, SEVERAL, SMALL, Form
from leamfast_bench.maps.case import Cell
from leamfast_bench.maps.tables import tables
from leamfast_bench.registry import Options, run
from tests.bench.test_maps_rows import ROWS

OURS = {f"leamfast {backend}" for backend in BACKENDS if backend != "auto"}
HEADLINE = Cell("demo", 9, 2, 1, EVERYONE, 2)
TINY = Form(
    (
        HEADLINE,
        replace(HEADLINE, references=2, groups=SEVERAL),
        replace(HEADLINE, model="nomodel=random:0"),
    ),
    ("demo",),
    2,
    2,
)


def check(results: dict, model: str, ours: set[str]) -> None:
    """Every row of other packages and the eager one ran; what of ours cannot be had here says why."""
    headline, several = results["cells"][:2]
    found = {row["row"]: row for row in headline["rows"]}
    timed = {name for name, row in found.items() if "median_seconds" in row}
    assert set(ROWS) | {"leamfast eager"} <= timed
    assert set(found) >= ours
    for name, row in found.items():
        assert (name in timed) != bool(row["why"]), row
        assert not row["why"].startswith(("wrong", "failed")), row
    assert headline["best"] in timed & ours
    for own in timed & ours:
        assert set(headline["ratios"][own]) == timed - {own}
    assert {row["row"] for row in several["rows"]} >= {"leamfast eager, batch repeated", "loop by hand"}
    assert all("median_seconds" in row or row["why"] for row in several["rows"])
    assert {line["model"] for line in results["faithful"]} == {model}
    assert results["faithful"][0]["row"] == "leamfast eager"
    for tap in results["faithful"][0]["taps"].values():
        assert tap["error"] < 1e-3
        assert tap["rank"] > 0.999
    assert results["whole"]["images"] > 0
    assert results["whole"]["share_of_maps"] > 0
    assert headline["model"].startswith(model)


@pytest.fixture(scope="module")
def tiny() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "SMALL", TINY)
        patch.setattr(ours, "BACKENDS", ("auto", "eager"))  # others compile for half a minute
        return run("maps", Options(small=True, note=lambda text: None))


def test_a_tiny_form_runs(tiny):
    assert tiny["metadata"]["benchmark"] == "maps"
    assert tiny["metadata"]["versions"]["torchcam"] != "absent"
    check(tiny["results"], "demo", {"leamfast eager"})
    (left_out,) = tiny["results"]["left_out"].items()
    assert left_out[0] == "nomodel, 9 layers, batch 2, 1 reference"
    assert left_out[1].startswith("model 'nomodel=random:0' is none of the named models")


def test_its_tables_are_whole(tiny):
    for table in tables(json.loads(json.dumps(tiny["results"]))):
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_full_form_varies_one_thing_at_a_time():
    first, *others = FULL.cells
    assert (first.model, first.taps, first.batch, first.references) == ("iresnet18=random:0", 9, 16, 1)
    assert first.groups == EVERYONE
    for cell in others:
        if cell.references == 1:
            same = (cell.model == first.model, cell.taps == first.taps, cell.batch == first.batch)
            assert sum(same) == 2
    names = [cell.name for cell in FULL.cells]
    assert len(set(names)) == len(names)
    for cell in FULL.cells + SMALL.cells:  # what knows of one reference only is asked about one
        assert ("repeated" in cell.groups) == (cell.references > 1)
        assert ("one pass" in cell.groups) == (cell.references == 1)


@pytest.mark.gpu
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
def test_a_tiny_form_runs_on_a_gpu(monkeypatch):
    monkeypatch.setattr(benchmark, "SMALL", TINY)
    found = run("maps", Options(small=True, device="cuda", note=lambda text: None))
    check(found["results"], "demo", OURS | {f"{name}, {less}" for name in OURS for less in ("tf32", "bf16")})
    assert all(row["peak_bytes"] > 0 for row in found["results"]["cells"][0]["rows"] if not row["why"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_small_form_as_users_run_it(tmp_path):
    kept = tmp_path / "maps.json"
    done = CliRunner().invoke(app, ["bench", "maps", "--small", "--threads", "2", "--out", str(kept)])
    assert done.exit_code == 0, done.output
    check(json.loads(kept.read_text())["results"], "demo", OURS)
    assert "pytorch-grad-cam, as documented" in done.stdout

"""`leamfast bench kernels` from end to end: a tiny form of it, and the small one as users run it."""

import json
import math
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from leamfast.cli.main import app
from leamfast_bench.kernels import benchmark, measure, operations
from leamfast_bench.kernels.benchmark import FULL, FULL_CUDA, SMALL
from leamfast_bench.kernels.case import Case, leamfast_row, plain_row, size_of
from leamfast_bench.kernels.measure import COPY, PRODUCT, error_of
from leamfast_bench.kernels.tables import tables
from leamfast_bench.registry import Options, run

TINY = replace(
    SMALL,
    images=2,
    taps=((3, 5, 7),),
    maps=8,
    cells=(7,),
    side=64,
    compared=6,
    grids=(5,),
    rounds=2,
    copied=1 << 16,
    product=16,
)


def check(results: dict) -> None:
    """Every row of every operation was found right and timed."""
    assert results["left_out"] == {}
    assert {case["kernel"] for case in results["cases"]} == set(operations.OPERATIONS)
    for case in results["cases"]:
        own, *others = case["rows"]
        assert own["row"] == "leamfast"
        assert others
        assert case["ceiling"] == (PRODUCT if case["operations"] else COPY)
        assert case["ceiling_rate"] > 0
        for row in case["rows"]:
            assert row["why"] == "", row
            assert row["error"] <= row["limit"] <= 0.1
            assert row["quartiles"][0] <= row["median_seconds"] <= row["quartiles"][1]
            assert math.isfinite(row["share_of_ceiling"])
        assert set(case["ratios"]) == {row["row"] for row in others}
        assert all(isinstance(ratio, float) and ratio > 0 for ratio in case["ratios"].values())


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(measure, "ROTATED", 1 << 12)
    monkeypatch.setattr(measure, "SAMPLE", 1e-4)


@pytest.fixture
def tiny(monkeypatch) -> dict:
    monkeypatch.setattr(benchmark, "SMALL", TINY)
    return run("kernels", Options(small=True, note=lambda text: None))


def test_a_tiny_form_runs_and_its_tables_are_whole(tiny):
    assert tiny["metadata"]["benchmark"] == "kernels"
    check(tiny["results"])
    found = tables(json.loads(json.dumps(tiny["results"])))
    assert [table.name for table in found] == [
        "kernels",
        "kernel_rows",
        "kernel_ceilings",
        "kernels_left_out",
    ]
    for table in found:
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert len(found[0].rows) == len(tiny["results"]["cases"])
    assert found[3].rows == (("torch.compile", "references are compiled in the full form"),)


def case_of(call, plain=torch.add) -> Case:
    return Case(
        "add",
        "some numbers",
        lambda: (torch.randn(5, 6), torch.randn(5, 6)),
        lambda a, b: a.double() + b.double(),
        (leamfast_row(call), plain_row(plain)),
        3 * 4 * 30,
    )


def no_more(a, b):
    raise RuntimeError("no more\nof this")


def test_what_is_wrong_is_not_timed():
    said: list[str] = []
    found = measure.measure(case_of(torch.sub), TINY, False, said.append)
    own, other = found["rows"]
    assert own["why"].startswith("wrong: off by ")
    assert "median_seconds" not in own
    assert other["median_seconds"] > 0
    assert found["ratios"] == {}
    assert any("leamfast: wrong" in text for text in said)
    results = {"cases": [found], "left_out": {"other": "is not there"}, "compiled": ""}
    kernels, rows, _, left_out = tables(results | {"device": "here", "threads": 2})
    assert kernels.rows == (("add, some numbers", "wrong", "", "", ""),)
    assert [row[1] for row in rows.rows] == ["plain PyTorch"]
    assert left_out.rows == (("add, some numbers, leamfast", own["why"]), ("other", "is not there"))


def test_what_fails_is_left_out_and_the_others_go_on():
    own, other = measure.measure(case_of(torch.add, no_more), TINY, False, lambda text: None)["rows"]
    assert own["median_seconds"] > 0
    assert other == {"row": "plain PyTorch", "why": "failed: RuntimeError: no more"}


def test_what_is_wrong_in_the_second_call_only_is_found():
    calls = []

    def once(a, b):
        calls.append(1)
        return a + b if len(calls) == 1 else a - b

    assert measure.measure(case_of(once), TINY, False, lambda text: None)["rows"][0]["why"].startswith(
        "wrong"
    )


def test_an_operation_that_is_not_there_is_named(monkeypatch):
    def missing(form):
        from leamfast_kernels.nothing import nothing  # noqa: F401

        yield

    monkeypatch.setattr(benchmark, "SMALL", TINY)
    monkeypatch.setattr(benchmark, "OPERATIONS", {"nothing": missing})
    found = run("kernels", Options(small=True, note=lambda text: None))["results"]
    assert found["cases"] == []
    assert found["left_out"] == {"nothing": "No module named 'leamfast_kernels.nothing'"}


@pytest.mark.parametrize(
    ("found", "wanted", "error"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([3.0, math.nan], [3.0, math.nan], 0.0),
        ([3.0, 4.0], [3.0, math.nan], math.inf),
        ([3.0, 4.0], [3.0], math.inf),
        ([0.0], [0.0], 0.0),
        ([1.0], [0.0], math.inf),
    ],
)
def test_the_error_of_a_result(found, wanted, error):
    found, wanted = torch.tensor(found), torch.tensor(wanted)
    assert error_of(found, wanted) == pytest.approx(error)
    assert error_of((wanted, found), (wanted, wanted)) == pytest.approx(error)
    assert error_of((wanted,), (wanted, wanted)) == math.inf


def test_every_call_is_given_other_inputs(monkeypatch):
    seen = []
    case = case_of(lambda a, b: seen.append(a.data_ptr()) or a + b)
    monkeypatch.setattr(measure, "ROTATED", 10 * size_of(case.draw()))
    monkeypatch.setattr(measure, "timed", lambda call, device: (call(), measure.SAMPLE / 12)[1])
    found = measure.measure(case, TINY, False, lambda text: None)
    assert found["sets"] == 10
    timed = seen[3:]  # behind two that are checked and one that warms up
    assert len(timed) > 20
    assert len(set(timed)) == 10
    assert all(first != second for first, second in zip(timed, timed[1:], strict=False))


def test_a_reference_is_not_compiled_unasked():
    case = next(iter(operations.aggregate_cases(replace(TINY, images=1))))
    assert "torch.compile of the reference" not in {row["row"] for row in _rows(case, False)}


@pytest.mark.slow
def test_a_compiled_reference_is_measured():
    case = next(iter(operations.aggregate_cases(replace(TINY, images=1))))
    (found,) = [row for row in _rows(case, True) if row["row"] == "torch.compile of the reference"]
    assert found["why"] == ""
    assert found["median_seconds"] > 0


def _rows(case: Case, compiled: bool) -> list[dict]:
    return measure.measure(case, TINY, compiled, lambda text: None)["rows"]


def test_the_full_forms():
    """What the project says of its speed was measured on these."""
    assert (FULL.compared, FULL.grids) == (2000, (28, 56))
    assert (FULL_CUDA.images, FULL_CUDA.compared) == (256, 10_000)
    assert {(64, 112, 112), (64, 56, 56)} <= set(FULL_CUDA.taps)
    assert torch.bfloat16 in FULL_CUDA.dtypes
    assert FULL.dtypes == (torch.float32,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
def test_a_tiny_form_runs_on_a_gpu(monkeypatch):
    monkeypatch.setattr(benchmark, "SMALL", replace(TINY, dtypes=FULL_CUDA.dtypes))
    check(run("kernels", Options(small=True, device="cuda", note=lambda text: None))["results"])


@pytest.mark.slow
def test_the_small_form_as_users_run_it(tmp_path, monkeypatch):
    monkeypatch.undo()
    kept = tmp_path / "kernels.json"
    done = CliRunner().invoke(app, ["bench", "kernels", "--small", "--threads", "2", "--out", str(kept)])
    assert done.exit_code == 0, done.output
    check(json.loads(kept.read_text())["results"])
    assert "plain PyTorch" in done.stdout

"""Our own rows of `leamfast bench maps`: which there are, and that compilers start from nothing."""

import os

import pytest

from leamfast.leam.backends import BACKENDS
from leamfast_bench.maps.benchmark import EVERYONE
from leamfast_bench.maps.caches import empty_caches
from leamfast_bench.maps.case import Cell, make_case
from leamfast_bench.maps.exact import exact
from leamfast_bench.maps.fidelity import fidelity
from leamfast_bench.maps.measure import prepare
from leamfast_bench.maps.ours import Explainers, backend_of, our_rows, variants
from tests.leam.conftest import small_iresnet  # noqa: F401 (a fixture)


def test_what_we_might_have_on_a_gpu_and_on_a_cpu():
    on_gpu = {(backend, precision) for _, backend, precision in variants("cuda")}
    kinds = [backend for backend in BACKENDS if backend != "auto"]
    assert on_gpu == {(backend, precision) for backend in kinds for precision in ("fp32", "tf32", "bf16")}
    on_cpu = {(backend, precision) for _, backend, precision in variants("cpu")}
    assert on_cpu == {(b, p) for b, p in on_gpu if p == "fp32" or b == "eager"}
    names = [name for name, _, _ in variants("cuda")]
    assert len(set(names)) == len(names)
    assert names[:1] == ["leamfast eager"]
    assert [backend_of(name) for name in (f"leamfast {kinds[-1]}", "")] == [kinds[-1], "eager"]


def test_an_explainer_is_made_once(small_iresnet):  # noqa: F811
    explainers = Explainers()
    one = explainers(small_iresnet, ("conv1",), "eager")
    assert explainers(small_iresnet, ("conv1",), "eager") is one
    assert explainers(small_iresnet, ("layer1.0.conv1",), "eager") is not one


def test_less_precision_on_a_cpu_is_compared_but_not_timed(small_iresnet, monkeypatch):  # noqa: F811
    monkeypatch.setattr("leamfast_bench.maps.ours.BACKENDS", ("auto", "eager"))
    case = make_case(small_iresnet, Cell("small", 3, 2, 1, EVERYONE, 2))
    wanted = exact(case)
    rows = {row.name: row for row in our_rows(Explainers(), "cpu")}
    for name, word in (("leamfast eager, bf16", "bf16"), ("leamfast eager, tf32", "tf32")):
        result, call = prepare(rows[name], case, wanted)
        assert call is None
        assert result["why"].startswith(f"precision {word}")
    lines = {line["row"]: line for line in fidelity(case, wanted, Explainers(), lambda text: None)}
    assert lines["leamfast eager, tf32"]["why"].startswith("precision tf32")
    single, half = (lines[name]["taps"] for name in ("leamfast eager", "leamfast eager, bf16"))
    for tap in case.taps:
        assert single[tap]["error"] < 1e-4 < half[tap]["error"] < 0.3
        assert 0.5 < half[tap]["rank"] <= single[tap]["rank"] <= 1 + 1e-12


@pytest.mark.parametrize("before", ["/somewhere", None])
def test_compilers_find_nothing_of_earlier_runs(monkeypatch, before):
    if before is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", before)
    with empty_caches():
        folder = os.environ["XDG_CACHE_HOME"]
        assert os.listdir(folder) == []
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == folder
    assert os.environ.get("XDG_CACHE_HOME") == before
    assert not os.path.exists(folder)

"""Pages whose tables come from stored results."""

import json
from pathlib import Path

import pytest

from leamfast_bench import registry
from leamfast_bench.pages import fill, markdown

ROOT = Path(__file__).resolve().parents[2]
TABLE = registry.Table("speed", "How fast", ("what", "ms"), (("maps", 3), ("bare", 2)))
FOUND = {"metadata": {"benchmark": "fake"}, "results": {}}
PAGE = "before\n<!-- table speed -->\nold\n<!-- end -->\nafter\n"


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    real = registry.registered
    fake = registry.Benchmark("a fake", (), lambda options: {}, lambda results: [TABLE])
    monkeypatch.setattr("leamfast_bench.pages.registered", lambda n: fake if n == "fake" else real(n))


def test_a_table_in_markdown():
    assert markdown(TABLE) == "\nHow fast:\n\n| what | ms |\n| --- | --: |\n| maps | 3 |\n| bare | 2 |\n\n"


def test_what_stands_between_the_marks_is_replaced_and_nothing_else():
    once = fill(PAGE, FOUND)
    assert once == f"before\n<!-- table speed -->\n{markdown(TABLE)}<!-- end -->\nafter\n"
    assert fill(once, FOUND) == once


def test_a_table_that_there_is_not():
    with pytest.raises(KeyError):
        fill(PAGE.replace("speed", "size"), FOUND)


@pytest.mark.parametrize(
    ("page", "results"),
    [
        ("docs/engine.md", "bench/results/engine.json"),
        ("docs/faces.md", "bench/results/faces.json"),
        ("docs/occlusion.md", "bench/results/occlusion.json"),
        ("docs/similarity.md", "bench/results/similarity.json"),
        ("docs/truth.md", "bench/results/truth.json"),
        ("docs/backends.md", "bench/results/maps.json"),
        ("README.md", "bench/results/maps.json"),
        ("kernels/README.md", "bench/results/kernels.json"),
    ],
)
def test_pages_say_what_their_results_say(page, results):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "<!-- table" in text
    assert fill(text, json.loads((ROOT / results).read_text())) == text

"""The warnings of a run's taps, in the store and as a table."""

import csv

from leamfast.analysis.diagnostics import write_diagnostics
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.store.results import open_results


def go(faces, out, **options):
    notes: list[str] = []
    request = BatchRequest(
        data=faces, out=out, model=("demo=random:0",), layers=("layer1.0.prelu,layer3.0",), align="none",
        threads=1, backend="eager", **options,
    )  # fmt: skip
    run_batch(request, note=notes.append)
    with write_diagnostics(out)[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    return notes, rows


def test_the_paper_s_own_way_is_warned_of_before_the_run_and_in_the_table(faces, tmp_path):
    notes, rows = go(faces, tmp_path / "paper")
    *rows, fused = rows
    assert fused == {
        "model": "demo",
        "map": "fused",
        "warning": "it is the mean over taps with warnings too: layer3.0",
    }
    assert {(row["model"], row["map"]) for row in rows} == {("demo", "layer3.0")}
    assert len(rows) == 3  # coarse, displaced, a sum
    assert sorted(f"demo layer3.0: {row['warning']}" for row in rows) == sorted(notes)
    with open_results(tmp_path / "paper") as results:
        assert results.warnings("demo", "layer3.0") == tuple(row["warning"] for row in rows)
        assert results.warnings("demo", "layer1.0.prelu") == ()
        assert results.file["model/demo/layer/layer1.0.prelu"].attrs["kind"] == "PReLU"


def test_true_centres_and_positive_activations_leave_the_grid_s_coarseness(faces, tmp_path):
    notes, rows = go(faces, tmp_path / "right", registration="receptive", activation="positive")
    assert [row["map"] for row in rows] == ["layer3.0", "fused"]
    assert len(notes) == 1
    assert "16x16 pixels" in rows[0]["warning"]

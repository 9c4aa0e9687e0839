"""Occlusion of real photos: drops that others measured with the same weights, and what is said of them."""

import pytest

from leamfast.analysis.occlusion_tables import occlusion_tables
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.engine.occlude_request import OccludeRequest
from leamfast.engine.occlude_run import run_occlude
from leamfast.store.verify import verify

OWN = {
    "conv1.0": 0.166,
    "dw_conv.pointwise": 0.208,
    "features.2.conv.2": 0.191,
    "features.8.conv.2": 0.096,
    "features.12.conv.2": 0.059,
    "conv2.0": 0.038,
}
SHIFTED = dict(zip(OWN, (0.040, 0.040, 0.032, 0.021, 0.014, 0.012), strict=True))
RANDOM = 0.068
CLOSE = 0.012


@pytest.mark.slow
def test_drops_of_photos_are_those_that_these_weights_must_give(shared_data, tmp_path):
    """All 280 ordered pairs, one draw of each control."""

    def quiet(text: str) -> None:
        """Notes are not of interest here."""

    batch = BatchRequest(
        data=shared_data / "photos", out=tmp_path / "out", layers=(",".join(OWN),), references="each",
        max_references=20, threads=1, model=(f"mobilefacenet={shared_data / 'mobilefacenet.pt'}",),
        detector=f"retinaface={shared_data / 'mobilenet0.25_Final.pth'}",
    )  # fmt: skip
    run_batch(batch, note=quiet)
    report = run_occlude(
        OccludeRequest(
            batch.out, percents=(1.0,), seeds=1, threads=1,
            controls=("random", "shifted", "other-identity", "population"),
        ),
        quiet,
    )  # fmt: skip
    assert (report.left_out, report.failed_blocks) == ({}, 0)
    assert verify(batch.out) == []
    tables = occlusion_tables(batch.out)
    drops = {(row.map, row.control): row for row in tables.occlusion}
    assert {row.n for row in drops.values()} == {280}
    for name in OWN:
        assert drops[name, "own"].drop == pytest.approx(OWN[name], abs=CLOSE), name
        assert drops[name, "random"].drop == pytest.approx(RANDOM, abs=CLOSE), name
        assert drops[name, "shifted"].drop == pytest.approx(SHIFTED[name], abs=CLOSE), name
        assert drops[name, "own"].support == 1
    # Another person's map keeps most of what looks like a person's own.
    assert drops["conv1.0", "other-identity"].drop > 0.5 * drops["conv1.0", "own"].drop
    verdicts = {verdict.map: verdict.verdict for verdict in tables.verdicts}
    assert verdicts["conv1.0"] == "mostly position prior"
    # Deep supports cost less than as many scattered pixels, and more than when they lie elsewhere.
    assert verdicts["conv2.0"] == "no better than random"
    assert "person-specific" not in verdicts.values()

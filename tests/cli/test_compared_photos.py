"""Maps of real photos against each other: means that others measured, and what is said of them."""

import pytest

from leamfast.analysis.similarity_tables import similarity_tables
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.engine.compare_run import CompareRequest, run_compare


@pytest.mark.slow
def test_maps_of_one_person_are_hardly_more_alike_than_those_of_two(shared_data, tmp_path):
    def quiet(text: str) -> None:
        """Notes are not of interest here."""

    batch = BatchRequest(
        data=shared_data / "photos", out=tmp_path / "out", layers=("conv1.0",), references="each", threads=2,
        model=(f"mobilefacenet={shared_data / 'mobilefacenet.pt'}",),
        detector=f"retinaface={shared_data / 'mobilenet0.25_Final.pth'}",
    )  # fmt: skip
    run_batch(batch, note=quiet)
    request = CompareRequest(batch.out, kinds=("A", "C", "D"), emd_pairs=150, emd_percents=(1,), threads=2)
    assert run_compare(request, quiet).pairs == {"A": 2 * 618, "C": 2 * 4338, "D": 2 * 16_179}
    tables = similarity_tables(batch.out)
    means = {
        (row.measure, row.kind): row.mean
        for row in tables.similarity
        if (row.map, row.threshold, row.prior) == ("conv1.0", 1, "kept")
    }
    bc, emd = ([means[measure, kind] for kind in "ACD"] for measure in ("bc", "emd"))
    assert bc == pytest.approx([0.32, 0.09, 0.06], abs=0.05)
    assert bc[0] > bc[1] >= bc[2]
    assert emd == pytest.approx([0.12, 0.14, 0.17], abs=0.03)
    assert emd[0] < emd[1] < emd[2]
    said = next(verdict for verdict in tables.verdicts if verdict.map == "conv1.0")
    assert said.supported == "nothing"  # ten people are too few
    assert "differ by 0.0" in said.sentence
    assert "(AUC 0.6" in said.sentence

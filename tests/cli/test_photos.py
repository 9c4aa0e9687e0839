"""The main job on real photos, with the figures that these weights must give."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from leamfast import open_results
from leamfast.cli.main import app
from leamfast.store.verify import verify

TAPS = "conv1.0,dw_conv.pointwise,features.2.conv.2,features.8.conv.2,features.12.conv.2,conv2.0"


def batch(shared_data, folder, out):
    command = [
        "batch", shared_data / folder, "--out", out,
        "--model", f"mobilefacenet={shared_data / 'mobilefacenet.pt'}",
        "--detector", f"retinaface={shared_data / 'mobilenet0.25_Final.pth'}",
        "--layers", TAPS, "--threads", 1,
    ]  # fmt: skip
    result = CliRunner().invoke(app, [str(word) for word in command])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def photos(shared_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("photos") / "out"
    batch(shared_data, "photos", out)
    return out


def test_all_photos_are_used_and_cosines_are_right(photos):
    assert verify(photos) == []
    assert (photos / "failures.csv").read_text().count("\n") == 1
    with open_results(photos) as results:
        embeddings, people = results.embedding("mobilefacenet"), results.identities
        assert results.taps("mobilefacenet") == tuple(TAPS.split(","))
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = units @ units.T
    same = people[:, None] == people[None, :]
    upper = np.triu(np.ones_like(same), 1)
    assert ((same & upper).sum(), (~same & upper).sum()) == (140, 1690)
    assert cosines[same & upper].mean() == pytest.approx(0.735, abs=0.01)
    assert cosines[~same & upper].mean() == pytest.approx(0.017, abs=0.01)
    # Cosines hardly move when channels or the mean are wrong; the embeddings themselves do.
    assert np.linalg.norm(embeddings, axis=1).mean() == pytest.approx(NORM, abs=0.05)
    np.testing.assert_allclose(embeddings[0, :6], FIRST, atol=0.02)


NORM = 19.487
FIRST = [0.929, 0.755, 2.667, -0.154, -0.953, 0.334]


def test_maps_are_there_for_every_photo_with_a_second_one(photos):
    with open_results(photos) as results:
        for tap in results.taps("mobilefacenet"):
            maps = results.map("mobilefacenet", tap)
            assert np.isfinite(maps).all()
            assert (maps.max(axis=(1, 2)) == 1).all()


def test_bad_photos_are_left_out_each_with_its_reason(shared_data, tmp_path):
    batch(shared_data, "photos_bad", tmp_path / "out")
    with (tmp_path / "out/failures.csv").open(newline="") as file:
        reasons = {row["path"]: (row["stage"], row["reason"]) for row in csv.DictReader(file)}
    stage, reason = reasons.pop("upsidedown_img1.jpg")
    assert stage == "detect"
    assert reason.startswith(
        "face is upside down or not whole: in a crop of 112 pixels its box has a side of 1"
    )
    assert reasons == {
        "none_logo.jpg": ("detect", "no face found"),
        "none_couple_topcrop.jpg": ("detect", "no face found"),
        "none_img1_faceblanked.jpg": ("detect", "no face found"),
        "multi_couple.jpg": ("detect", "2 faces found, exactly one is needed"),
        "multi_selfie-many-people.jpg": ("detect", "6 faces found, exactly one is needed"),
        "small_img1_thumbnail64.jpg": (
            "detect",
            "face is too small: its eyes are 14.6 pixels apart, at least 20 are needed",
        ),
    }
    with open_results(tmp_path / "out") as results:
        assert len(results.text("image/path")) == 0

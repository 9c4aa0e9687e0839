"""Real photos with the regions of their faces, from photos to the table of regions."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from leamfast import open_results
from leamfast.cli.main import app
from leamfast.faces.alignment import ARCFACE_TEMPLATE
from leamfast.faces.regions import REGIONS
from leamfast.store.verify import verify

TAPS = "conv1.0,features.2.conv.2,features.8.conv.2"
POLYGONS = {"face", "rb", "lb", "re", "le", "nose", "imouth", "llip", "ulip"}


def leamfast(*words: object) -> None:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output


def batch(shared_data: Path, out: Path, *words: object) -> list[dict[str, str]]:
    """Maps of the photos, and the table of regions."""
    model = f"mobilefacenet={shared_data / 'mobilefacenet.pt'}"
    leamfast(
        "batch",
        shared_data / "photos",
        "--out",
        out,
        "--model",
        model,
        "--layers",
        TAPS,
        "--threads",
        1,
        *words,
    )
    leamfast("analyze", out)
    assert verify(out) == []
    with (out / "tables/regions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_regions_from_landmarks(shared_data, tmp_path):
    pytest.importorskip("dlib")
    rows = batch(shared_data, tmp_path / "out", "--detector", "dlib", "--parser", "polygons")
    assert {row["region"] for row in rows} == POLYGONS
    assert {row["map"] for row in rows} == {*TAPS.split(","), "fused"}
    assert {row["n"] for row in rows} == {"61"}
    areas = {row["region"]: float(row["area"]) for row in rows}
    assert 0.015 < areas["nose"] < 0.05
    assert 0.2 < areas["face"] < 0.5
    assert abs(areas["re"] / areas["le"] - 1) < 0.1
    for row in rows:
        share, area, over = (float(row[name]) for name in ("share", "area", "over_representation"))
        assert over == pytest.approx(share / area, rel=1e-4)
    eyes = [
        float(row["over_representation"])
        for row in rows
        if row["region"] in ("re", "le") and (row["map"], row["threshold"]) == ("conv1.0", "5")
    ]
    assert min(eyes) > 2  # what matters most to this network is small


class Quarters(nn.Module):
    """A network with FaRL's signature that tells the same regions in every aligned face."""

    def __init__(self) -> None:
        super().__init__()
        logits = torch.zeros(1, 19, 448, 448)
        for name, rows, columns in (
            ("re", slice(280), slice(224)),
            ("le", slice(280), slice(224, 448)),
            ("llip", slice(280, 448), slice(448)),
        ):
            logits[0, REGIONS.index(name), rows, columns] = 5.0
        self.register_buffer("logits", logits)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits.expand(images.shape[0], -1, -1, -1), images.mean()


def test_regions_from_a_network_with_farls_signature(shared_data, tmp_path):
    archive = tmp_path / "farl.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Quarters().eval()), str(archive))
    rows = batch(
        shared_data, tmp_path / "out", "--detector", f"retinaface={shared_data / 'mobilenet0.25_Final.pth'}",
        "--parser", f"farl={archive}", "--limit-identities", 4,
    )  # fmt: skip
    assert {row["region"] for row in rows} == set(REGIONS)
    with open_results(tmp_path / "out") as results:
        labels = results.file["crop/112/label"][...]
        assert dict(results.file["crop/112"].attrs)["parser"] == "farl"
        totals = results.region_share("mobilefacenet", "conv1.0").sum(axis=2)
    assert totals.max() <= 1 + 1e-6
    assert totals.mean() > 0.9  # but for what lies outside of a photo
    for name, place in zip(("re", "le", None, "llip", "llip"), ARCFACE_TEMPLATE, strict=True):
        if name is not None:
            x, y = np.round(place).astype(int)
            assert (labels[:, y, x] == REGIONS.index(name)).all()

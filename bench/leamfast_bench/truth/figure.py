"""A figure of planted truth, from the models that ship: `python -m leamfast_bench.truth.figure OUT`."""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot

from leamfast.leam.registration import Centres
from leamfast.models.face_model import FaceModel
from leamfast.models.loading import load_model
from leamfast.report.overlays import lay_over
from leamfast_bench.truth.methods import FAITHFUL, PAPER, leam_maps, residual_taps
from leamfast_bench.truth.models import find_models
from leamfast_bench.truth.planted import PlantedSet, planted_set
from leamfast_bench.truth.scoring import make_query
from leamfast_kernels import upsample

__all__ = ["main"]

PEOPLE, CELL_INCHES = 2, 1.2
SHOWN = ("layer1.0.conv1", "layer2.0", "layer3.0.prelu", "layer4.0.prelu", "fused activations")
CELLS = {"layer1.0.conv1": 56, "layer2.0": 14, "layer3.0.prelu": 14, "layer4.0.prelu": 7}


def main() -> None:
    """Draw people of each shipped model: the truth, then maps of the model by both presets, and untrained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = find_models(None)
    columns = ["truth", *(f"{tap}\n{preset}" for preset in ("paper", "faithful") for tap in _titles())]
    columns.append("fused, faithful\nuntrained")
    figure, axes = pyplot.subplots(
        len(models) * PEOPLE,
        len(columns),
        figsize=(CELL_INCHES * len(columns), CELL_INCHES * len(models) * PEOPLE + 0.6),
        layout="constrained",
    )
    for i, planted_model in enumerate(models):
        planted = planted_set(planted_model.generator(), PEOPLE, 3)
        maps = _maps(planted_model.load(), planted)
        untrained = _maps(load_model("demo=random:0"), planted)
        for person in range(PEOPLE):
            line, row = axes[i * PEOPLE + person], person * 3
            line[0].imshow(planted.images[row])
            line[0].contour(planted.inside[row], [0.5], colors="white", linewidths=1.2)
            line[0].set_ylabel(f"{planted.region} planted", fontsize=8)
            shown = [maps[variant.name, tap] for variant in (PAPER, FAITHFUL) for tap in SHOWN]
            for axis, values in zip(
                line[1:], [*shown, untrained[FAITHFUL.name, "fused activations"]], strict=True
            ):
                lay_over(axis, planted.images[row], values[row])
                axis.contour(planted.inside[row], [0.5], colors="white", linewidths=0.6)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=7)
    figure.savefig(arguments.out, dpi=110)


def _titles() -> list[str]:
    return [f"{tap}\n{CELLS[tap]} cells" if tap in CELLS else "fused" for tap in SHOWN]


def _maps(model: FaceModel, planted: PlantedSet) -> dict[tuple[str, str], np.ndarray]:
    """(variant, tap) -> maps at the size of the pictures."""
    query = make_query(model, planted)
    size = planted.images.shape[1]
    return {
        (maps.method, maps.map): _at(maps.maps, size, maps.centres)
        for maps in leam_maps(query, (PAPER, FAITHFUL), residual_taps(model))
        if maps.map in SHOWN
    }


def _at(maps: torch.Tensor, size: int, centres: Centres | None) -> np.ndarray:
    return upsample(maps, size, centres).numpy()


if __name__ == "__main__":
    main()

"""One thread for every test, a planted set small enough to be drawn by hand, and methods of the user's."""

import sys

import numpy as np
import pytest
import torch

from leamfast.faces.regions import region_index
from leamfast_bench.truth.planted import PlantedSet

SIDE, PEOPLE, IMAGES = 32, 3, 2
PARTS = {  # class -> rows and columns that it covers; later ones are painted over earlier ones
    "face": (slice(4, 30), slice(6, 26)),
    "re": (slice(8, 10), slice(8, 12)),
    "le": (slice(8, 10), slice(20, 26)),
    "ulip": (slice(24, 26), slice(12, 20)),
    "llip": (slice(26, 28), slice(12, 20)),
    "nose": (slice(13, 19), slice(13, 19)),
}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def constructed(region: str = "nose") -> PlantedSet:
    """Six pictures of noise, all with the same parts: a nose of 36 pixels, eyes of 8 and 12, lips of 16."""
    label = np.zeros((SIDE, SIDE), np.uint8)
    for name, (rows, columns) in PARTS.items():
        label[rows, columns] = region_index(name)
    count = PEOPLE * IMAGES
    images = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    people = np.repeat(np.arange(PEOPLE), IMAGES)
    return PlantedSet(region, images, np.repeat(label[None], count, axis=0), people)


CENTRE = """
import torch

def centre(model, images, references):
    size = images.shape[-1]
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    bump = torch.exp(-((axis[:, None] ** 2 + axis**2) / (2 * (size / 4) ** 2)))
    return bump.expand(len(images), -1, -1)
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Writes a module of the user's into the folder where the command is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_methods", raising=False)

    def write(code: str) -> None:
        (tmp_path / "own_methods.py").write_text(code)

    yield write
    sys.modules.pop("own_methods", None)

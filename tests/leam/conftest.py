"""Small models on which maps are computed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from leamfast.leam.compiling import has_compiler
from leamfast.models import FaceModel, Preprocessing
from leamfast.models.iresnet import IResNet

HALF = (127.5, 127.5, 127.5)


def face_model(network: nn.Module, size: int = 32, seed: int = 0) -> FaceModel:
    """A model with weights and BatchNorm statistics that are not at their start values."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            low, high = (0.5, 1.5) if name.endswith(("var", "weight")) else (-0.3, 0.3)
            tensor.copy_(torch.empty_like(tensor).uniform_(low, high, generator=generator))
    return FaceModel("small", "small", network.eval(), Preprocessing(size, "rgb", HALF, HALF), "")


@pytest.fixture
def small_iresnet() -> FaceModel:
    torch.manual_seed(0)
    return face_model(IResNet((1, 1, 1, 1), (4, 6, 8, 8), 16, 32))


class InPlace(nn.Module):
    """A network in which what follows a tap overwrites it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 6, 3, 2, 1)
        self.unused = nn.Conv2d(6, 2, 1)
        self.twice = nn.Conv2d(6, 6, 1)
        self.fc = nn.Linear(6 * 8 * 8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv1(x))
        self.unused(x)
        x = self.conv2(x)
        x += 0.1
        x = x + self.twice(self.twice(x))
        return self.fc(x.flatten(1))


@pytest.fixture
def in_place() -> FaceModel:
    torch.manual_seed(1)
    return face_model(InPlace())


@pytest.fixture(scope="session")
def program_cache(tmp_path_factory) -> Iterator[Path]:
    """A cache of compiled programs of this session's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def compiler() -> None:
    """A C++ compiler, without which Inductor cannot work; continuous integration must have one."""
    if not has_compiler():
        assert not os.environ.get("CI"), "continuous integration needs a C++ compiler"
        pytest.skip("no C++ compiler")

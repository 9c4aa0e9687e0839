"""A model that does to its process what files in a folder tell it, at images that it knows by a pixel.

It is given to `leamfast batch` as `tests.chaos.faulty:network`, so the product needs no hooks for faults.
"""

import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["FOLDER", "PAUSE", "TAG", "network"]

FOLDER = "LEAMFAST_CHAOS_FAULTS"
"""Variable that names the folder of files `crash-17`, `hang-17`, `raise-17`: what happens at image 17 in each
process that meets it; `crash-17.once`: in the first one."""

PAUSE = "LEAMFAST_CHAOS_PAUSE"
"""Variable with the seconds that each batch takes in addition."""

TAG = (77, 201)
"""Green and blue of the first pixel of our images; its red is the image's number."""


class Faulty(nn.Module):
    """A small network: (N, 3, 112, 112) -> (N, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.prelu1 = nn.PReLU(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.fc = nn.Linear(256, 16)

    def forward(self, images: Tensor) -> Tensor:
        numbers = _numbers(images)
        if numbers:
            time.sleep(float(os.environ.get(PAUSE, "0")))
            _suffer(numbers)
        found = self.conv2(self.prelu1(self.conv1(images)))
        return self.fc(self.pool(found).flatten(1))


def network() -> nn.Module:
    """The model, with the same weights every time."""
    torch.manual_seed(7)
    return Faulty()


def _numbers(images: Tensor) -> list[int]:
    """Numbers of our images in a batch; none in what is made up to try a model."""
    pixels = ((images.detach()[:, :, 0, 0].float() * 0.5 + 0.5) * 255).round()
    return [int(red) for red, *rest in pixels.tolist() if tuple(rest) == TAG]


def _suffer(numbers: list[int]) -> None:
    folder = Path(os.environ[FOLDER])
    for number in numbers:
        for what in ("crash", "hang", "raise"):
            always, once = folder / f"{what}-{number}", folder / f"{what}-{number}.once"
            if always.exists() or _taken(once):
                _strike(what, number)


def _taken(file: Path) -> bool:
    """Whether the file was there and is ours now: of two processes one is hit."""
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def _strike(what: str, number: int) -> None:
    if what == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(3600)
    raise RuntimeError(f"image {number} does not please the model")

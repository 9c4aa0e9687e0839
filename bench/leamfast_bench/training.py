"""Training the demo's network on synthetic faces: CosFace, SGD, one cycle, on CPU, to be gone on with.

The same seed, thread count, machine type and versions give the same weights.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from leamfast.datasets.synthetic import FaceGenerator
from leamfast.models.demo import DEMO_EMBEDDING, DEMO_MEAN, DEMO_SIZE, DEMO_STD, demo_network

__all__ = ["UNSEEN", "Recipe", "cosface", "embed", "preprocess", "render_people", "train"]

SCALE, MARGIN, MARGIN_RAMP = 24.0, 0.2, 0.3  # the margin grows over the first 30% of the steps
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, BATCH = 0.1, 0.9, 5e-4, 64
UNSEEN = 1_000_000  # first identity of the people a model is measured on


@dataclass(frozen=True)
class Recipe:
    """What a model is trained on, and for how long.

    Attributes:
        seed: of data, initial weights and batch order.
        plant: region in which alone people differ; None: everything differs.
        free: whether all other regions are drawn anew for every picture.
        people: synthetic people to train on.
        images: pictures of each.
        epochs: passes over all pictures.
        start: hash of the weights that it begins with; empty for random ones.
    """

    seed: int = 0
    plant: str | None = None
    free: bool = False
    people: int = 500
    images: int = 20
    epochs: int = 10
    start: str = ""

    def generator(self) -> FaceGenerator:
        """Renders the people."""
        return FaceGenerator(seed=self.seed, size=DEMO_SIZE, plant=self.plant, free=self.free)


def render_people(generator: FaceGenerator, first: int, people: int, images: int) -> NDArray[np.uint8]:
    """Pictures (people * images, H, W, 3) of the identities from `first` on, person by person."""
    faces = np.empty((people * images, generator.size, generator.size, 3), np.uint8)
    for row in range(len(faces)):
        faces[row] = generator.render(first + row // images, row % images).image
    return faces


def preprocess(faces: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) uint8 RGB -> (N, 3, H, W) float32, channels last in memory."""
    pixels = torch.from_numpy(faces).permute(0, 3, 1, 2)
    return pixels.to(torch.float32).sub_(DEMO_MEAN).div_(DEMO_STD)


def cosface(embeddings: Tensor, centres: Tensor, target: Tensor, margin: float) -> Tensor:
    """Cross entropy of s (cos - m [the own class]), s the scale.

    Args:
        embeddings: (N, D).
        centres: one row for each class, (classes, D).
        target: class of each embedding, (N,).
        margin: m.

    Reference: Wang et al., CosFace, 2018, equation 4.
    """
    cosine = functional.linear(functional.normalize(embeddings), functional.normalize(centres))
    own = functional.one_hot(target, len(centres)).to(cosine.dtype)
    return functional.cross_entropy(SCALE * (cosine - margin * own), target)


def train(
    recipe: Recipe, start: dict[str, Tensor] | None = None, checkpoint: Path | None = None
) -> torch.nn.Module:
    """The trained network, in evaluation mode.

    Args:
        recipe: data and length of the training.
        start: the weights to begin with (default: random ones).
        checkpoint: file that holds the state after every epoch, and from which a stopped training goes on to
            the same bits; removed at the end.
    """
    started = time.perf_counter()
    faces = render_people(recipe.generator(), 0, recipe.people, recipe.images)
    target = np.repeat(np.arange(recipe.people), recipe.images)
    print(f"rendered {len(faces)} pictures in {time.perf_counter() - started:.0f} s", flush=True)

    torch.manual_seed(recipe.seed)
    network = demo_network().to(memory_format=torch.channels_last)
    if start is not None:
        network.load_state_dict(start)
    centres = torch.nn.Parameter(torch.randn(recipe.people, DEMO_EMBEDDING) * 0.01)
    parameters = [*network.parameters(), centres]
    optimiser = torch.optim.SGD(
        parameters, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    steps = len(faces) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=LEARNING_RATE, total_steps=recipe.epochs * steps, cycle_momentum=False
    )
    state = {"network": network, "optimiser": optimiser, "schedule": schedule}
    done = _restore(checkpoint, recipe, state, centres)
    order = np.random.default_rng(recipe.seed)
    for epoch in range(recipe.epochs):
        rows, losses = order.permutation(len(faces)), []
        if epoch < done:
            continue
        for first in range(0, steps * BATCH, BATCH):
            batch, step = rows[first : first + BATCH], epoch * steps + first // BATCH
            margin = MARGIN * min(1.0, step / (MARGIN_RAMP * recipe.epochs * steps))
            loss = cosface(
                network(preprocess(faces[batch])), centres, torch.from_numpy(target[batch]), margin
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        elapsed = time.perf_counter() - started
        print(f"epoch {epoch + 1}/{recipe.epochs}  loss {np.mean(losses):.4f}  {elapsed:.0f} s", flush=True)
        _save(checkpoint, recipe, state, centres, epoch + 1)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return network.eval()


def _save(checkpoint: Path | None, recipe: Recipe, state: dict, centres: Tensor, epoch: int) -> None:
    if checkpoint is None:
        return
    content = {name: part.state_dict() for name, part in state.items()}
    temporary = checkpoint.with_name(checkpoint.name + ".new")
    torch.save({**content, "centres": centres.detach(), "epoch": epoch, "recipe": str(recipe)}, temporary)
    temporary.replace(checkpoint)


def _restore(checkpoint: Path | None, recipe: Recipe, state: dict, centres: Tensor) -> int:
    """Take up the state of a stopped training; how many epochs it has behind it."""
    if checkpoint is None or not checkpoint.is_file():
        return 0
    content = torch.load(checkpoint, weights_only=True)
    if content["recipe"] != str(recipe):
        return 0
    for name, part in state.items():
        part.load_state_dict(content[name])
    with torch.no_grad():
        centres.copy_(content["centres"])
    return int(content["epoch"])


@torch.inference_mode()
def embed(network: torch.nn.Module, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embeddings of uint8 pictures (N, H, W, 3), (N, D)."""
    parts = [network(preprocess(faces[i : i + BATCH])) for i in range(0, len(faces), BATCH)]
    return torch.cat(parts).numpy()

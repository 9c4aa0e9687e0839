"""Train the demo model on synthetic faces: `python -m leamfast_bench.train_demo`.

Renders the training people once, trains `demo_network` with the CosFace loss, measures how well it tells
apart pairs of pictures of people it has never seen, and writes `leamfast/models/demo.safetensors`. The same
seed, thread count, machine type and versions give the same weights.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from leamfast.datasets.synthetic import FaceGenerator
from leamfast.models.demo import (
    DEMO_ARCHITECTURE,
    DEMO_EMBEDDING,
    DEMO_MEAN,
    DEMO_SIZE,
    DEMO_STD,
    DEMO_WEIGHTS,
    demo_network,
)

__all__ = ["cosface", "embed", "main", "render_people", "same_different_auc", "train"]

SCALE, MARGIN, MARGIN_RAMP = 24.0, 0.2, 0.3  # the margin grows over the first 30% of the steps
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, BATCH = 0.1, 0.9, 5e-4, 64
UNSEEN = 1_000_000  # first identity of the people the model is measured on


def render_people(
    seed: int, first: int, people: int, images: int, *, plant: str | None = None
) -> NDArray[np.uint8]:
    """Pictures (people * images, H, W, 3) of the identities from `first` on, person by person."""
    generator = FaceGenerator(seed=seed, size=DEMO_SIZE, plant=plant)
    faces = np.empty((people * images, DEMO_SIZE, DEMO_SIZE, 3), np.uint8)
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


def train(faces: NDArray[np.uint8], target: NDArray[np.int64], *, epochs: int, seed: int) -> torch.nn.Module:
    """The trained network, in evaluation mode."""
    torch.manual_seed(seed)
    network = demo_network().to(memory_format=torch.channels_last)
    classes = int(target.max()) + 1
    centres = torch.nn.Parameter(torch.randn(classes, DEMO_EMBEDDING) * 0.01)
    parameters = [*network.parameters(), centres]
    optimiser = torch.optim.SGD(
        parameters, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    steps = len(faces) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=LEARNING_RATE, total_steps=epochs * steps, cycle_momentum=False
    )
    order = np.random.default_rng(seed)
    step, started = 0, time.perf_counter()
    for epoch in range(epochs):
        rows, losses = order.permutation(len(faces)), []
        for first in range(0, steps * BATCH, BATCH):
            batch = rows[first : first + BATCH]
            margin = MARGIN * min(1.0, step / (MARGIN_RAMP * epochs * steps))
            loss = cosface(
                network(preprocess(faces[batch])), centres, torch.from_numpy(target[batch]), margin
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            step += 1
        elapsed = time.perf_counter() - started
        print(f"epoch {epoch + 1}/{epochs}  loss {np.mean(losses):.4f}  {elapsed:.0f} s", flush=True)
    return network.eval()


@torch.inference_mode()
def embed(network: torch.nn.Module, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embeddings of uint8 pictures (N, H, W, 3), (N, D)."""
    parts = [network(preprocess(faces[i : i + BATCH])) for i in range(0, len(faces), BATCH)]
    return torch.cat(parts).numpy()


def same_different_auc(vectors: NDArray[np.float32], people: NDArray[np.int64]) -> float:
    """How often the cosine of a pair of the same person exceeds that of a pair of different people.

    Args:
        vectors: one row for each picture, (N, D).
        people: the person of each picture, (N,).

    Returns:
        Area under the ROC curve over all pairs, 0.5 chance, 1 perfect; ties count half.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    i, j = np.triu_indices(len(unit), 1)
    cosine, same = (unit @ unit.T)[i, j], people[i] == people[j]
    different = np.sort(cosine[~same])
    below = np.searchsorted(different, cosine[same], "left") + np.searchsorted(
        different, cosine[same], "right"
    )
    return float(below.mean() / (2 * len(different)))


def main() -> None:
    """Parse, render, train, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DEMO_WEIGHTS, help="weights file to write")
    parser.add_argument("--seed", type=int, default=0, help="of data, initial weights and batch order")
    parser.add_argument("--people", type=int, default=500, help="synthetic people to train on")
    parser.add_argument("--images", type=int, default=20, help="pictures of each")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--unseen", type=int, default=200, help="people to measure on, with 6 pictures each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plant", help="train on people who differ in this region only; needs an --out")
    arguments = parser.parse_args()
    if arguments.plant is not None and arguments.out == DEMO_WEIGHTS:
        parser.error("--plant trains another model than the demo's: name its file with --out")

    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    torch.use_deterministic_algorithms(True)

    started = time.perf_counter()
    faces = render_people(arguments.seed, 0, arguments.people, arguments.images, plant=arguments.plant)
    elapsed = time.perf_counter() - started
    print(
        f"rendered {len(faces)} pictures in {elapsed:.0f} s ({len(faces) / elapsed:.0f} a second)", flush=True
    )
    target = np.repeat(np.arange(arguments.people), arguments.images)
    network = train(faces, target, epochs=arguments.epochs, seed=arguments.seed)

    unseen = render_people(arguments.seed, UNSEEN, arguments.unseen, 6, plant=arguments.plant)
    people = np.repeat(np.arange(arguments.unseen), 6)
    auc = same_different_auc(embed(network, unseen), people)
    pixels = unseen.reshape(len(unseen), -1).astype(np.float32)
    raw = same_different_auc(pixels - pixels.mean(0), people)
    print(f"unseen people: {arguments.unseen}, AUC {auc:.5f}, of mean-centred pixels {raw:.5f}")

    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    metadata = {
        **DEMO_ARCHITECTURE,
        "seed": str(arguments.seed),
        "people": str(arguments.people),
        "images": str(arguments.images),
        "epochs": str(arguments.epochs),
        "plant": arguments.plant or "",
        "auc": f"{auc:.5f}",
        "auc_pixels": f"{raw:.5f}",
    }
    save_file(weights, str(arguments.out), metadata)
    print(f"wrote {arguments.out} ({arguments.out.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()

"""Train the demo model on synthetic faces: `python -m leamfast_bench.train_demo`.

Renders the training people once, trains `demo_network` with the CosFace loss, measures how well it tells
apart pairs of pictures of people it has never seen, and writes `leamfast/models/demo.safetensors`.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file

from leamfast.models.demo import DEMO_ARCHITECTURE, DEMO_WEIGHTS
from leamfast_bench.recognition import same_different_auc
from leamfast_bench.training import UNSEEN, Recipe, embed, render_people, train

__all__ = ["main"]


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
    arguments = parser.parse_args()
    recipe = Recipe(
        seed=arguments.seed, people=arguments.people, images=arguments.images, epochs=arguments.epochs
    )

    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    network = train(recipe)

    unseen = render_people(recipe.generator(), UNSEEN, arguments.unseen, 6)
    people = np.repeat(np.arange(arguments.unseen), 6)
    auc = same_different_auc(embed(network, unseen), people)
    pixels = unseen.reshape(len(unseen), -1).astype(np.float32)
    raw = same_different_auc(pixels - pixels.mean(0), people)
    print(f"unseen people: {arguments.unseen}, AUC {auc:.5f}, of mean-centred pixels {raw:.5f}")

    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    metadata = {
        **DEMO_ARCHITECTURE,
        "seed": str(recipe.seed),
        "people": str(recipe.people),
        "images": str(recipe.images),
        "epochs": str(recipe.epochs),
        "auc": f"{auc:.5f}",
        "auc_pixels": f"{raw:.5f}",
    }
    save_file(weights, str(arguments.out), metadata)
    print(f"wrote {arguments.out} ({arguments.out.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()

"""What maps cost on top of a bare forward and backward pass: `python -m leamfast_bench.overhead`.

The bare pass runs the network from the image to the embedding with the first tap's activation as the leaf,
and takes the gradient of 1 - cos at that leaf alone. The program does the same and makes the maps of nine
taps. Both run in turn, in one process; the ratio of their medians is printed as JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from leamfast import LEAM, load_model
from leamfast.models import FaceModel

__all__ = ["main"]


def bare(model: FaceModel, tap: str, images: Tensor, references: Tensor) -> Callable[[], Tensor]:
    """Forward and backward to one tap, without maps."""
    module = model.network.get_submodule(tap)

    def once() -> Tensor:
        leaves: list[Tensor] = []

        def cut(module: object, args: object, output: Tensor) -> Tensor:
            leaves.append(output.detach().requires_grad_())
            torch.set_grad_enabled(True)
            return leaves[0]

        handle = module.register_forward_hook(cut)
        with torch.set_grad_enabled(False):
            cosines = torch.cosine_similarity(model.network(images), references)
            (gradient,) = torch.autograd.grad((1 - cosines).sum(), leaves)
        handle.remove()
        return gradient

    return once


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="AF_R18=random:0")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    model = load_model(options.model, device=options.device)
    leam = LEAM(model)
    size = model.preprocessing.size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(options.batch, 3, size, size, generator=generator).to(options.device)
    references = model.embed(torch.randn(images.shape, generator=generator).to(options.device))
    runs = {"bare": bare(model, leam.taps[0], images, references), "maps": lambda: leam(images, references)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(options.rounds + 2):
        for name, once in runs.items():
            _settle(options.device)
            start = time.perf_counter()
            once()
            _settle(options.device)
            if turn >= 2:  # warm-up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        json.dumps(
            {
                "model": options.model,
                "taps": list(leam.taps),
                "batch": options.batch,
                "threads": torch.get_num_threads(),
                "device": options.device,
                "torch": torch.__version__,
                "median_seconds": medians,
                "quartiles": {name: statistics.quantiles(v, n=4) for name, v in seconds.items()},
                "ratio": medians["maps"] / medians["bare"],
            },
            indent=2,
        )
    )


def _settle(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()

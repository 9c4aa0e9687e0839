"""`leamfast bench overhead`: what maps cost on top of a bare forward and backward pass.

The bare pass runs the network from the image to the embedding with the first tap's activation as the leaf,
and takes the gradient of 1 - cos at that leaf alone. The program does the same and makes the maps of nine
taps. Both run in turn, in one process; the ratio of their medians counts.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from leamfast import LEAM, load_model
from leamfast.models import FaceModel
from leamfast_bench.registry import Benchmark, Options, Table

__all__ = ["BENCHMARK"]

MODEL, BATCH, ROUNDS = "AF_R18=random:0", 16, 15


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


def run(options: Options) -> dict[str, Any]:
    """Medians of both, in turn."""
    model = load_model(MODEL, device=options.device)
    leam = LEAM(model)
    size = model.preprocessing.size
    generator = torch.Generator().manual_seed(0)
    batch, rounds = (4, 3) if options.small else (BATCH, ROUNDS)
    images = torch.randn(batch, 3, size, size, generator=generator).to(options.device)
    references = model.embed(torch.randn(images.shape, generator=generator).to(options.device))
    runs = {"bare": bare(model, leam.taps[0], images, references), "maps": lambda: leam(images, references)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 2):
        for name, once in runs.items():
            _settle(options.device)
            start = time.perf_counter()
            once()
            _settle(options.device)
            if turn >= 2:  # warm-up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "model": MODEL,
        "taps": list(leam.taps),
        "batch": batch,
        "median_seconds": medians,
        "quartiles": {name: statistics.quantiles(v, n=4) for name, v in seconds.items()},
        "ratio": medians["maps"] / medians["bare"],
    }


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Seconds a batch."""
    rows = [(name, f"{value * 1000:.1f}") for name, value in results["median_seconds"].items()]
    title = f"{results['model']}, batch {results['batch']}, {len(results['taps'])} taps"
    return [Table("overhead", title, ("", "ms"), (*rows, ("ratio", f"{results['ratio']:.3f}")))]


def _settle(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


BENCHMARK = Benchmark(
    "what maps of nine taps cost on top of a bare forward and backward pass", (), run, tables
)

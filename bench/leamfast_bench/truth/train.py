"""Train the planted models: `python -m leamfast_bench.truth.train --out DIR`.

Each model sees people who differ in one region only (`all`: in every region) and learns to tell them apart:
about ten minutes on one core. A `free` model sees all other regions drawn anew for every picture; it starts
from the weights of the plain model of its region and seed, because from random ones it learns nothing. A
stopped command goes on where it stopped; models that are there are kept.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from leamfast.errors import RequestError
from leamfast.models.demo import DEMO_ARCHITECTURE
from leamfast.models.weights import tensors_sha256
from leamfast_bench.recognition import same_different_auc, true_accept_rate
from leamfast_bench.training import UNSEEN, Recipe, embed, render_people, train
from leamfast_bench.truth.models import KINDS, REGIONS, model_file

__all__ = ["main", "recipe_of", "train_model"]

EPOCHS = {"nose": 12, "eyes": 12, "brows": 14, "lips": 12, "all": 4}
FREE_EPOCHS = 5
UNSEEN_PEOPLE, UNSEEN_IMAGES = 200, 6
INTERRUPTED = 130


def recipe_of(region: str, kind: str, seed: int) -> Recipe:
    """How a planted model is trained."""
    plant = None if region == "all" else region
    epochs = FREE_EPOCHS if kind == "free" else EPOCHS[region]
    return Recipe(seed=seed, plant=plant, free=kind == "free", epochs=epochs)


def train_model(folder: Path, region: str, kind: str, recipe: Recipe) -> str:
    """Train one model, measure it on people it has not seen, and write its file.

    Weights are rounded to float16, which halves the file; they are measured as rounded.

    Returns:
        What came of it, in a line.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.use_deterministic_algorithms(True)
    out = folder / model_file(region, kind, recipe.seed)
    start = None
    if kind == "free":
        plain = folder / model_file(region, "plain", recipe.seed)
        if not plain.is_file():
            raise RequestError(f"{plain} must be there before {out.name}: it starts from those weights")
        start = {name: tensor.float() for name, tensor in sorted(_read(plain)[0].items())}
        recipe = replace(recipe, start=tensors_sha256(start))
    if out.is_file():
        _check_recipe(out, recipe)
        return f"{out.name} is there"
    network = train(recipe, start, checkpoint=out.with_suffix(".epoch"))
    weights = {
        name: tensor.half().contiguous() if tensor.ndim > 1 else tensor
        for name, tensor in network.state_dict().items()
    }
    network.load_state_dict(weights)

    unseen = render_people(recipe.generator(), UNSEEN, UNSEEN_PEOPLE, UNSEEN_IMAGES)
    people = np.repeat(np.arange(UNSEEN_PEOPLE), UNSEEN_IMAGES)
    vectors = embed(network, unseen)
    pixels = unseen.reshape(len(unseen), -1).astype(np.float32)
    measured = {
        "auc": same_different_auc(vectors, people),
        "true_accept_rate": true_accept_rate(vectors, people),
        "auc_pixels": same_different_auc(pixels - pixels.mean(0), people),
    }
    metadata = {key: str(value) for key, value in asdict(recipe).items()}
    metadata |= {key: f"{value:.5f}" for key, value in measured.items()}
    temporary = out.with_suffix(".new")
    save_file(weights, str(temporary), {**DEMO_ARCHITECTURE, "region": region, "kind": kind, **metadata})
    temporary.replace(out)
    return f"{out.name}  " + "  ".join(f"{key} {value:.5f}" for key, value in measured.items())


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and header of a weights file."""
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as exc:
        raise RequestError(f"{path} is not readable as safetensors: {exc}") from exc


def _check_recipe(out: Path, recipe: Recipe) -> None:
    """Raise a RequestError where the model that is there was made otherwise."""
    said = _read(out)[1]
    for key, wanted in asdict(recipe).items():
        if said.get(key, "") != str(wanted):
            raise RequestError(
                f"{out} was trained with {key} {said.get(key, '')!r} where {str(wanted)!r} is asked: "
                "remove it, or name another --out"
            )


def main() -> None:
    """Train what is asked and not there yet; plain models before free ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the models")
    parser.add_argument("--regions", default=",".join(REGIONS), help="separated by commas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="plain, free")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--jobs", type=int, default=1, help="models trained at once, one core each")
    for name, what in (("people", "to train on"), ("images", "of each"), ("epochs", "passes over them")):
        parser.add_argument(f"--{name}", type=int, help=f"{what} (default: enough to learn; fewer to try)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    fewer = {name: getattr(arguments, name) for name in ("people", "images", "epochs")}
    fewer = {name: value for name, value in fewer.items() if value is not None}
    if arguments.jobs < 1 or not all(seed.isdecimal() for seed in arguments.seeds.split(",")):
        parser.error("--jobs must be 1 or more and --seeds whole numbers separated by commas")
    regions, seeds = arguments.regions.split(","), [int(seed) for seed in arguments.seeds.split(",")]
    if unknown := set(regions) - set(REGIONS):
        parser.error(f"--regions must be among {', '.join(REGIONS)}, got {', '.join(sorted(unknown))}")
    kinds = arguments.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds must be among {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    for kind in sorted(kinds, key=KINDS.index):  # free models start from plain ones
        recipes = [
            (region, replace(recipe_of(region, kind, seed), **fewer))
            for seed in seeds
            for region in regions
            if kind == "plain" or region != "all"
        ]
        with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
            jobs = [
                pool.submit(train_model, arguments.out, region, kind, recipe) for region, recipe in recipes
            ]
            try:
                for job in jobs:
                    print(job.result(), flush=True)
            except RequestError as exc:
                pool.shutdown(cancel_futures=True)
                parser.error(str(exc))
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                parser.exit(INTERRUPTED, "stopped; the same command goes on\n")


if __name__ == "__main__":
    main()

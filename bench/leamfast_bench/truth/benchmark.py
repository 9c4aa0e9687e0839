"""`leamfast bench truth`: how often maps are right, where the right answer is known.

Every planted model is asked about unseen people who differ in its region alone. Its maps should find that
region; those of an untrained model and of models of other regions, on the same pictures, should not.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module, metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from leamfast.errors import RequestError
from leamfast.models.loading import load_model
from leamfast.models.weights import file_sha256
from leamfast.store.atomic import write_atomically
from leamfast_bench.recognition import same_different_auc, true_accept_rate
from leamfast_bench.registry import Benchmark, Options
from leamfast_bench.truth.methods import ALL_VARIANTS, Maps, Query, Variant, leam_maps, residual_taps
from leamfast_bench.truth.models import PlantedModel, find_models
from leamfast_bench.truth.peers import PEERS, missing, user_method
from leamfast_bench.truth.planted import planted_set
from leamfast_bench.truth.scores import CURVE, PERCENTS
from leamfast_bench.truth.scoring import Score, make_query, score_maps
from leamfast_bench.truth.tables import checks, tables

__all__ = ["BENCHMARK", "Form", "LEARNT", "score_model"]

# What scores depend on, besides models and settings.
PACKAGES = ("leamfast.leam", "leamfast.models", "leamfast.datasets.synthetic", "leamfast_kernels")
ROOMS = ("benchmark", "methods", "models", "peers", "planted", "scores", "scoring")
LEARNT = 0.95  # AUC on unseen people below which a model did not learn what was planted
PAPER = Variant("loss", "signed", "resize")
FAITHFUL = Variant("similarity", "positive", "receptive")


@dataclass(frozen=True)
class Form:
    """How much is scored.

    Attributes:
        people, images: unseen people and pictures of each.
        draws: of the shifted control.
        variants: of LEAM, on the model itself.
        free_variants: on a free model.
        control_variants: on the untrained and the cross-planted models.
        peers: methods of others.
    """

    people: int
    images: int
    draws: int
    variants: tuple[Variant, ...]
    free_variants: tuple[Variant, ...]
    control_variants: tuple[Variant, ...]
    peers: tuple[str, ...]


MEAN_VARIANTS = tuple(variant for variant in ALL_VARIANTS if variant.references == "mean")
PRESETS = (PAPER, FAITHFUL)
FULL = Form(24, 3, 1, ALL_VARIANTS, MEAN_VARIANTS, PRESETS, tuple(PEERS))
SMALL = Form(10, 3, 1, PRESETS, PRESETS, PRESETS, tuple(PEERS))


def run(options: Options) -> dict[str, Any]:
    """Scores of all planted models; those that lie in the folder already are kept."""
    form = SMALL if options.small else FULL
    models = find_models(options.folder)
    left_out = {peer: reason for peer in form.peers if (reason := missing(peer))}
    for reason in left_out.values():
        options.note(f"left out of the comparison: {reason}")
    form = replace(form, peers=tuple(peer for peer in form.peers if peer not in left_out))
    if options.method is not None:
        user_method(options.method, options.trust_code)  # what is wrong with it is said before hours of work
    asked = replace(options, note=print)  # what hears of progress need not travel to other processes
    tasks = [_Task(model, _others(model, models), form, asked) for model in models if model.region != "all"]
    results = []
    with _pool(options.workers) as each:
        for task, (result, kept) in zip(tasks, each(_scored, tasks), strict=True):
            results.append(result)
            what = result["unreported"] or f"{len(result['scores'])} scores{' from before' if kept else ''}"
            options.note(f"{task.model.name}: {what}")
    found = {"percents": PERCENTS, "curve": CURVE, "models": results, "left_out": left_out}
    return found | {"checks": checks(found)}


@dataclass(frozen=True)
class _Task:
    """One planted model, the models of other regions that are asked about its pictures, and how much."""

    model: PlantedModel
    cross: tuple[PlantedModel, ...]
    form: Form
    options: Options


def _others(model: PlantedModel, models: Iterable[PlantedModel]) -> tuple[PlantedModel, ...]:
    """Models of the same seed that were trained alike on another region, and the one of all regions."""
    return tuple(
        other
        for other in models
        if other.seed == model.seed
        and other.region != model.region
        and (other.kind == model.kind or other.region == "all")
    )


@contextmanager
def _pool(workers: int) -> Iterator[Callable]:
    """`map` over processes, or in this one."""
    if workers < 2:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def _scored(task: _Task) -> tuple[dict[str, Any], bool]:
    """Scores of a model, and whether they had been there."""
    options = task.options
    torch.set_num_threads(options.threads)
    own = None if options.method is None else user_method(options.method, options.trust_code)
    cache = None if own is not None else _cache(task)
    if cache is not None and cache.is_file():
        return json.loads(cache.read_text()), True
    result = score_model(task.model, task.cross, task.form, options.device, own)
    if cache is not None:
        write_atomically(cache, json.dumps(result, allow_nan=False).encode())
    return result, False


def score_model(
    model: PlantedModel,
    cross: tuple[PlantedModel, ...],
    form: Form,
    device: str = "cpu",
    own: Any = None,
) -> dict[str, Any]:
    """All scores of one planted model; none where it did not learn or its set is not what it says.

    Args:
        model: the model.
        cross: models of other regions, asked about the same pictures.
        form: how much is scored.
        device: where models compute.
        own: a method of the user's.
    """
    about = {
        "region": model.region,
        "kind": model.kind,
        "seed": model.seed,
        "people": form.people,
        "images": form.people * form.images,
        "scores": [],
        "unreported": "",
    }
    try:
        planted = planted_set(model.generator(), form.people, form.images)
    except RequestError as exc:
        return about | {"unreported": str(exc)}
    query = make_query(model.load(device), planted)
    vectors = torch.nn.functional.normalize(query.model.embed(query.images)).cpu().numpy()
    auc = same_different_auc(vectors, planted.people)
    about |= {"auc": auc, "true_accept_rate": true_accept_rate(vectors, planted.people)}
    if auc < LEARNT:
        return about | {
            "unreported": f"AUC {auc:.3f} on unseen people is below {LEARNT}: this model did not learn "
            f"to tell people apart by their {model.region}, so its maps cannot be judged"
        }
    variants = form.free_variants if model.kind == "free" else form.variants
    methods = [partial(_leam, variants=variants), *(PEERS[name] for name in form.peers)]
    if own is not None:
        methods.append(own)
    scores = [_row("own", score) for score in score_maps(query, planted, methods, form.draws)]
    for name, control in _controls(model, cross, device):
        asked = make_query(control, planted)
        leam = partial(_leam, variants=form.control_variants)
        scores += [_row(name, score) for score in score_maps(asked, planted, [leam])]
    return about | {"scores": scores}


def _controls(model: PlantedModel, cross: tuple[PlantedModel, ...], device: str) -> Iterator[tuple[str, Any]]:
    yield "untrained", load_model(f"demo=random:{model.seed}", device=device)
    for other in cross:
        yield other.region, other.load(device)


def _leam(query: Query, variants: tuple[Variant, ...]) -> Iterator[Maps]:
    return leam_maps(query, variants, residual_taps(query.model))


def _row(model: str, score: Score) -> dict[str, Any]:
    """A score without the fields that it has not."""
    row = {name: _rounded(value) for name, value in asdict(score).items()}
    kept = {name: value for name, value in row.items() if name == "map" or value not in ("", None, [], {})}
    return {"model": model} | kept


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, tuple | list):
        return [_rounded(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return value


def _cache(task: _Task) -> Path | None:
    """File of a model's scores, named after everything that they depend on; None for what ships."""
    options, models = task.options, (task.model, *task.cross)
    if options.folder is None:
        return None
    parts = [str(task.form), options.device, str(options.threads), torch.__version__]
    parts += [file_sha256(model.weights) for model in models]
    parts += [_version(package) for package in ("numpy", "grad-cam", "captum")]
    folders = [Path(str(import_module(package).__file__)).parent for package in PACKAGES]
    parts += [path.read_text() for folder in folders for path in sorted(folder.rglob("*.py"))]
    parts += [(Path(__file__).parent / f"{room}.py").read_text() for room in ROOMS]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return options.folder / f"{task.model.name}.{digest}.scores.json"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


BENCHMARK = Benchmark(
    "planted truth: how often maps find the one region that people differ in",
    ("models", "method", "workers"),
    run,
    tables,
)

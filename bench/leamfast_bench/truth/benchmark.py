"""`leamfast bench truth`: how often maps are right, where the right answer is known.

Every planted model is asked about unseen people who differ in its region alone. Its maps should find that
region; those of an untrained model and of models of other regions, on the same pictures, should not.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import leamfast
import leamfast_kernels
from leamfast.errors import RequestError
from leamfast.models.face_model import FaceModel
from leamfast.models.loading import load_model
from leamfast.models.weights import file_sha256
from leamfast.store.atomic import write_atomically
from leamfast_bench.recognition import same_different_auc, true_accept_rate
from leamfast_bench.registry import Benchmark, Options
from leamfast_bench.truth.methods import (
    ALL_VARIANTS,
    FAITHFUL,
    PAPER,
    Maps,
    Method,
    Query,
    Variant,
    leam_maps,
    residual_taps,
)
from leamfast_bench.truth.models import PlantedModel, find_models
from leamfast_bench.truth.peers import PACKAGES, PRIORS, missing
from leamfast_bench.truth.planted import PlantedSet, planted_set
from leamfast_bench.truth.scores import CURVE, PERCENTS
from leamfast_bench.truth.scoring import make_query, score_maps
from leamfast_bench.truth.tables import checks, tables
from leamfast_bench.truth.user import user_method

__all__ = ["BENCHMARK", "FULL", "LEARNT", "SMALL", "Form", "score_method", "score_model"]

# What scores depend on, besides models and settings.
LIBRARIES = ("analysis", "datasets", "faces", "leam", "models")
ROOMS = ("recognition.py", *(f"truth/{name}.py" for name in ("benchmark", "methods", "models", "peers")))
ROOMS += tuple(f"truth/{name}.py" for name in ("planted", "scores", "scoring"))
VERSIONS = ("torch", "numpy", "opencv-python", "grad-cam", "captum")
LEARNT = 0.95  # AUC on unseen people below which a model did not learn what was planted
PRESETS = (PAPER, FAITHFUL)


@dataclass(frozen=True)
class Form:
    """How much is scored.

    Attributes:
        people, images: unseen people and pictures of each.
        draws: of the moved supports, for the presets, the peers and the priors.
        variants: of LEAM beside the presets, on a plain model.
        free_variants: the same on a free model.
        packages: of peers.
    """

    people: int
    images: int
    draws: int
    variants: tuple[Variant, ...]
    free_variants: tuple[Variant, ...]
    packages: tuple[str, ...]


OTHERS = tuple(variant for variant in ALL_VARIANTS if variant not in PRESETS)
FULL = Form(24, 3, 3, OTHERS, (), tuple(PACKAGES))
SMALL = Form(10, 3, 1, (), (), tuple(PACKAGES))


def run(options: Options) -> dict[str, Any]:
    """Scores of all planted models; those that lie in the folder already are kept."""
    form = SMALL if options.small else FULL
    models = find_models(options.folder)
    left_out = {package: reason for package in form.packages if (reason := missing(package))}
    for reason in left_out.values():
        options.note(f"left out of the comparison: {reason}")
    form = replace(form, packages=tuple(package for package in form.packages if package not in left_out))
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
    """Scores of a model, and whether they had been there; a user's method is scored on top of them."""
    options, cache = task.options, _cache(task)
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False
    kept = cache is not None and cache.is_file()
    if cache is not None and kept:
        result = json.loads(cache.read_text())
    else:
        result = score_model(task.model, task.cross, task.form, options.device)
        if cache is not None:
            write_atomically(cache, json.dumps(result, allow_nan=False).encode())
    if options.method is not None and not result["unreported"]:
        own = user_method(options.method, options.trust_code)
        result["scores"] += score_method(task.model, own, task.form, options.device)
    return result, kept


def score_model(
    model: PlantedModel, cross: tuple[PlantedModel, ...], form: Form, device: str = "cpu"
) -> dict[str, Any]:
    """All scores of one planted model; none where it did not learn or its set is not what it says.

    Args:
        model: the model.
        cross: models of other regions, asked about the same pictures.
        form: how much is scored.
        device: where models compute.
    """
    about: dict[str, Any] = {
        "region": model.region,
        "kind": model.kind,
        "seed": model.seed,
        "weights": file_sha256(model.weights),
        "header": dict(model.header),
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
    peers = [PACKAGES[name] for name in form.packages]
    presets = partial(_leam, variants=PRESETS)
    others = partial(_leam, variants=form.free_variants if model.kind == "free" else form.variants)
    scores = _rows("own", query, planted, [presets, *peers, *PRIORS.values()], form.draws)
    scores += _rows("own", query, planted, [others], 0)
    controls = [("untrained", _untrained(model, device), [presets, *peers])]
    controls += [(other.region, other.load(device), [presets]) for other in cross]
    for name, network, methods in controls:
        scores += _control_rows(name, network, planted, methods)
    return about | {"scores": scores}


def score_method(
    model: PlantedModel, method: Method, form: Form, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Scores of one more method on a planted model, and on an untrained one."""
    planted = planted_set(model.generator(), form.people, form.images)
    scores = _rows("own", make_query(model.load(device), planted), planted, [method], form.draws)
    return scores + _control_rows("untrained", _untrained(model, device), planted, [method])


def _untrained(model: PlantedModel, device: str) -> FaceModel:
    return load_model(f"demo=random:{model.seed}", device=device)


def _leam(query: Query, variants: tuple[Variant, ...]) -> Iterator[Maps]:
    return leam_maps(query, variants, residual_taps(query.model))


def _control_rows(
    name: str, network: FaceModel, planted: PlantedSet, methods: Sequence[Method]
) -> list[dict[str, Any]]:
    """Scores on a control, or the reason why it cannot be asked: two pictures may be one to it."""
    try:
        return _rows(name, make_query(network, planted), planted, methods)
    except RequestError as exc:
        return [{"model": name, "method": "", "map": "", "unreported": str(exc)}]


def _rows(
    name: str, query: Query, planted: PlantedSet, methods: Sequence[Method], draws: int | None = None
) -> list[dict[str, Any]]:
    """Scores of methods on a model, each without the fields that it has not."""
    rows = []
    for score in score_maps(query, planted, methods, draws):
        row = {field: _rounded(value) for field, value in asdict(score).items()}
        kept = {field: v for field, v in row.items() if field == "map" or v not in ("", None, [], {})}
        rows.append({"model": name} | kept)
    return rows


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
    parts = [str(task.form), options.device, str(options.threads), torch.backends.cpu.get_cpu_capability()]
    parts += [file_sha256(model.weights) for model in models]
    parts += [_version(package) for package in VERSIONS]
    bench, library = Path(__file__).parents[1], Path(str(leamfast.__file__)).parent
    kernels = Path(str(leamfast_kernels.__file__)).parent
    folders = (kernels, *(library / name for name in LIBRARIES))
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    parts += [path.read_text() for path in [*sorted(sources), *(bench / room for room in ROOMS)]]
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

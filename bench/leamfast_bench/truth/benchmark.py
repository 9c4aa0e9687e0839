"""`leamfast bench truth`: how often maps are right, where the right answer is known.

Every planted model is asked about unseen people who differ in its region alone. Its maps should find that
region; those of an untrained model and of models of other regions, on the same pictures, should not.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from leamfast.errors import RequestError
from leamfast.models.loading import load_model
from leamfast.models.weights import file_sha256
from leamfast_bench.recognition import same_different_auc, true_accept_rate
from leamfast_bench.registry import Benchmark, Options
from leamfast_bench.truth.methods import ALL_VARIANTS, Maps, Query, Variant, leam_maps, residual_taps
from leamfast_bench.truth.models import PlantedModel, find_models
from leamfast_bench.truth.peers import PEERS, missing, user_method
from leamfast_bench.truth.planted import planted_set
from leamfast_bench.truth.scores import CURVE, PERCENTS
from leamfast_bench.truth.scoring import Score, make_query, score_maps
from leamfast_bench.truth.tables import tables

__all__ = ["BENCHMARK", "Form", "LEARNT", "score_model"]

ROOMS = ("benchmark", "methods", "peers", "planted", "scores", "scoring")  # what scores depend on
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
    """Scores of all planted models, one after the other; those in the folder's cache are kept."""
    form = SMALL if options.small else FULL
    models = find_models(options.folder)
    own = None if options.method is None else user_method(options.method, options.trust_code)
    left_out = {peer: reason for peer in form.peers if (reason := missing(peer))}
    for reason in left_out.values():
        options.note(f"left out of the comparison: {reason}")
    form = replace(form, peers=tuple(peer for peer in form.peers if peer not in left_out))
    results = []
    for model in models:
        if model.region == "all":
            continue
        others = [m for m in models if m.seed == model.seed and m.region != model.region]
        cross = tuple(m for m in others if m.kind == model.kind or m.region == "all")
        cache = _cache(model, cross, form, options)
        if cache is not None and cache.is_file() and own is None:
            results.append(json.loads(cache.read_text()))
            options.note(f"{model.name}: scored before")
            continue
        result = score_model(model, cross, form, options.device, own)
        results.append(result)
        options.note(f"{model.name}: {result['unreported'] or str(len(result['scores'])) + ' scores'}")
        if cache is not None and own is None:
            temporary = cache.with_suffix(".new")
            temporary.write_text(json.dumps(result))
            temporary.replace(cache)
    return {"percents": PERCENTS, "curve": CURVE, "models": results, "left_out": left_out}


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


def _cache(model: PlantedModel, cross: tuple[PlantedModel, ...], form: Form, options: Options) -> Path | None:
    """File of a model's scores, named after everything that they depend on; None for what ships."""
    if options.folder is None:
        return None
    parts = [str(form), options.device, torch.__version__, *(file_sha256(m.weights) for m in (model, *cross))]
    parts += [(Path(__file__).parent / f"{room}.py").read_text() for room in ROOMS]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return options.folder / f"{model.name}.{digest}.scores.json"


BENCHMARK = Benchmark("planted truth: how often maps find the one region that people differ in", run, tables)

"""The models of a finished run once more: those that can be loaded embed occluded images."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from leamfast.engine.batch import set_up_torch
from leamfast.engine.occlude_request import OccludeRequest
from leamfast.engine.occlude_settings import Evaluated
from leamfast.engine.programs import first_that_works
from leamfast.engine.request import BatchRequest
from leamfast.errors import RequestError
from leamfast.leam.backends import BACKENDS, choose_backend
from leamfast.leam.program import Program
from leamfast.leam.taps import select_taps
from leamfast.models.face_model import FaceModel
from leamfast.models.loading import brings_preprocessing, load_model, located, runs_code, spec_name
from leamfast.store.results import Results
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import read_frozen

__all__ = ["OcclusionModels", "evaluated_models"]


@dataclass(frozen=True)
class OcclusionModels:
    """Models of a run as they are today.

    Attributes:
        evaluated: those that embed occluded images.
        programs: of them by name.
        without: model -> why it does not.
    """

    evaluated: tuple[Evaluated, ...]
    programs: Mapping[str, Program]
    without: dict[str, str]


def evaluated_models(
    request: OccludeRequest,
    batch: BatchRequest,
    results: Results,
    images: int,
    threads: int,
    before: Mapping[str, Any] | None,
    note: Callable[[str], None],
) -> OcclusionModels:
    """Load the models of a run, and build their programs.

    Args:
        request: what is asked; a SPEC of its `model` stands in for that of the run with the same name.
        batch: what was asked of the run.
        results: the run.
        images: how many each model embeds, from which `auto` follows.
        threads: of one process.
        before: frozen settings of the pass that goes on, whose backends are kept.
        note: told of what the user should know.

    Raises:
        RequestError: a name is not one of the run's, or no model can be loaded.
    """
    set_up_torch(threads, request.device)
    for option, names in (("evaluated", request.evaluated or ()), ("model", map(spec_name, request.model))):
        for name in names:
            if name not in results.models:
                raise RequestError(
                    f"--{option} must name models of the run ({', '.join(results.models)}), got {name!r}"
                )
    frozen = read_frozen(RunFolder(results.root).settings)
    specs = _specs(request, batch)
    asked = [name for name in results.models if request.evaluated is None or name in request.evaluated]
    evaluated, programs, without = [], {}, {}
    for name in asked:
        try:
            spec, preprocessing = _spec(name, specs, batch)
            if request.trust_code and spec not in request.model and runs_code(spec):
                note(f"{name}: running code of {spec}, which run.toml names")
            model = load_model(
                spec, preprocessing=preprocessing, trust_code=request.trust_code, device=request.device
            )
            _check_weights(model, frozen)
            candidates = _candidates(request, model, images, threads, before)
            tap = results.taps(name)[-1]
            backend, programs[name] = first_that_works(
                model,
                select_taps(model, (tap,)),
                candidates,
                note,
                target=str(frozen["target"]),
                activation=str(frozen["activation"]),
                registration=str(frozen["registration"]),
                precision=str(frozen["precision"]),
            )
            kept = programs[name].kept
            evaluated.append(Evaluated(name, located(spec), preprocessing, backend, tap, kept))
        except RequestError as exc:
            without[name] = str(exc)
            note(f"{name} embeds no occluded images: {exc}")
    if not evaluated:
        reasons = "; ".join(f"{name}: {why}" for name, why in without.items())
        raise RequestError(f"no model of {results.root} can be loaded ({reasons}): give --model SPEC")
    return OcclusionModels(tuple(evaluated), programs, without)


def _specs(request: OccludeRequest, batch: BatchRequest) -> dict[str, str]:
    """Name of each model -> its SPEC; what run.toml says that is none any more has no name."""
    specs = {}
    for spec in batch.model:
        with suppress(RequestError):
            specs[spec_name(spec)] = spec
    return specs | {spec_name(spec): spec for spec in request.model}


def _spec(name: str, specs: Mapping[str, str], batch: BatchRequest) -> tuple[str, Mapping[str, Any] | None]:
    """How a model of the run is loaded."""
    if name not in specs:
        raise RequestError(f"run.toml names no file that it can be loaded from: give --model {name}:=SPEC")
    given = batch.preprocessing or {}
    brought = None if brings_preprocessing(specs[name]) else given.get(name, given.get("*"))
    return specs[name], brought


def _check_weights(model: FaceModel, frozen: Mapping[str, Any]) -> None:
    made = (frozen.get("models") or {}).get(model.name) or {}
    if made.get("weights") != model.weights:
        was, now = str(made.get("weights"))[:12], model.weights[:12]
        raise RequestError(f"its weights are not those of the run ({was}, now {now})")


def _candidates(
    request: OccludeRequest, model: FaceModel, images: int, threads: int, before: Mapping[str, Any] | None
) -> tuple[str, ...]:
    if request.backend not in BACKENDS:
        raise RequestError(f"--backend must be one of {', '.join(BACKENDS)}, got {request.backend!r}")
    if request.backend != "auto":
        return (request.backend,)
    kept = ((before or {}).get("models") or {}).get(model.name)
    return (kept,) if kept in BACKENDS else choose_backend(model, images, threads)

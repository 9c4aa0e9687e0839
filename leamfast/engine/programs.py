"""Which backend computes each model of a run, and the programs by them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from leamfast.engine.batch import set_up_torch
from leamfast.engine.batch_settings import BatchSettings
from leamfast.errors import RequestError
from leamfast.leam.backends import BACKENDS, build_program, choose_backend
from leamfast.leam.program import Program
from leamfast.leam.taps import select_taps
from leamfast.models.compiled import CompiledModel
from leamfast.models.face_model import FaceModel
from leamfast.models.layers import Layer

__all__ = ["first_that_works", "resolve_backends"]


def resolve_backends(
    asked: str,
    settings: BatchSettings,
    models: Sequence[FaceModel],
    images: int,
    before: dict[str, Any] | None,
    note: Callable[[str], None],
) -> tuple[BatchSettings, dict[str, Program]]:
    """The settings with backends resolved, and the programs by them, built and checked.

    Args:
        asked: `auto`, or the backend of all models.
        settings: of the run.
        models: the models, in the order of `settings.models`.
        images: how many the run has; `auto` follows from it.
        before: frozen settings of the run that goes on, whose backends are kept.
        note: told of what takes time, and of backends that are left aside.

    Raises:
        RequestError: the backend that was asked for cannot be had.
    """
    set_up_torch(settings.threads, settings.device)
    programs, resolved = {}, []
    for model, of_model in zip(models, settings.models, strict=True):
        frozen = ((before or {}).get("models") or {}).get(model.name) or {}
        if asked != "auto":
            candidates: tuple[str, ...] = (asked,)
        elif frozen.get("backend") in BACKENDS:
            candidates = (frozen["backend"],)  # a resumed run keeps it
        else:
            candidates = choose_backend(model, images, settings.threads)
            if candidates == ("eager",):
                note(f"{model.name}: backend eager, as compiling does not pay for {images} images")
        backend, programs[model.name] = first_that_works(
            model,
            select_taps(model, of_model.layers),
            candidates,
            note,
            target=settings.target,
            activation=settings.activation,
            registration=settings.registration,
            precision=settings.precision,
        )
        resolved.append(replace(of_model, backend=backend))
    return replace(settings, models=tuple(resolved)), programs


def first_that_works(
    model: FaceModel,
    taps: Sequence[Layer],
    candidates: Sequence[str],
    note: Callable[[str], None],
    *,
    target: str,
    activation: str,
    registration: str,
    precision: str,
) -> tuple[str, Program]:
    """The first backend that can compute a program, and that program.

    Args:
        model, taps: as `build_program` takes them.
        candidates: backends, the best first.
        note: told of what takes time, and of backends that are left aside.
        target, activation, registration, precision: as `build_program` takes them.

    Raises:
        RequestError: none of them can be had.
    """
    for backend in candidates:
        if backend != "eager" and not isinstance(model, CompiledModel):
            note(f"{model.name}: preparing backend {backend}, kept for the next time")
        try:
            return backend, build_program(
                model,
                taps,
                target=target,
                activation=activation,
                registration=registration,
                backend=backend,
                precision=precision,
            )
        except RequestError as exc:
            if backend == candidates[-1]:
                raise
            note(f"{model.name}: backend {backend} is left aside: {exc}")
    raise AssertionError("candidates must not be empty")

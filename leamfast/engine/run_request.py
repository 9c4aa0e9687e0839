"""What was asked of a run, from the `[request]` of its `run.toml`, with the types of its values checked."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from leamfast.engine.request import BatchRequest, wrong_value
from leamfast.errors import RequestError
from leamfast.models.preprocessing import Preprocessing
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import read_settings

__all__ = ["read_options", "request_of"]

TYPES = {f.name: f.type.__name__ if isinstance(f.type, type) else str(f.type) for f in fields(BatchRequest)}
KINDS = {
    "str": (str,),
    "Path": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "tuple": (list,),
    "dict": (dict,),
}


def read_options(config: Path) -> dict[str, Any]:
    """The options of a `run.toml`: its `[request]`, with `[models]` in `preprocessing`; as TOML has them.

    Without `resume` and `trust_code`, which are said anew each time.

    Raises:
        RequestError: the file cannot be read, or has an option that there is not or that has another type, or
            preprocessing that is none.
    """
    content = read_settings(config)
    request, models = content.get("request", {}), content.get("models", {})
    if not isinstance(request, dict) or not isinstance(models, dict):
        raise RequestError(f"{config}: [request] and [models] must be tables")
    request = dict(request)
    if unknown := sorted(set(request) - set(TYPES)):
        raise RequestError(f"{config}: [request] has the unknown option {unknown[0]!r}")
    request.pop("resume", None)
    # A run.toml comes with results of others: it cannot say that the code it names is to be trusted.
    request.pop("trust_code", None)
    for name, value in request.items():
        if not _fits(TYPES[name], value):
            raise RequestError(f"{config}: [request] {name} must be {TYPES[name]}, got {value!r}")
    _check_preprocessing(config, "request.preprocessing", request.get("preprocessing", {}))
    _check_preprocessing(config, "models", models)
    if models:
        request["preprocessing"] = {**request.get("preprocessing", {}), **models}
    return request


def request_of(folder: RunFolder, data: Path | None = None) -> BatchRequest:
    """The request of a finished run.

    Paths stand in `run.toml` as they were given, relative to the folder where `leamfast batch` ran; only that
    of the results is `folder`, which may have been moved. `trust_code` is False whatever the run had.

    Args:
        folder: the result folder.
        data: the data set, where it lies elsewhere now.

    Raises:
        RequestError: as `read_options`; or the request is not whole, an option has a value that it cannot
            have, or its data is not there.
    """
    options = read_options(folder.settings)
    for name in ("data", "model"):
        if not options.get(name):
            raise RequestError(f"{folder.settings} is not the run.toml of a run: [request] has no {name}")
    for name in ("model", "layers"):
        if name in options:
            options[name] = tuple(options[name])
    place = Path(options["data"]) if data is None else data
    request = BatchRequest(**{**options, "data": place, "out": folder.root})
    if (wrong := wrong_value(request)) is not None:
        raise RequestError(f"{folder.settings}: [request] {wrong[0]} {wrong[1]}")
    if not os.path.exists(place):  # False too where nobody may look
        raise RequestError(
            f"data set {place} of {folder.root} is not there: "
            + (
                "run it from where `leamfast batch` was run, or give --data"
                if data is None
                else "give its path with --data"
            )
        )
    return request


def _check_preprocessing(config: Path, place: str, models: dict[str, Any]) -> None:
    """Raise a RequestError where a model's preprocessing, at this place of the file, is none."""
    for name, values in models.items():
        if not isinstance(values, dict):
            raise RequestError(
                f"{config}: [{place}] {name} must be a table of size, channels, mean and std, got {values!r}"
            )
        try:
            Preprocessing.from_mapping(values)
        except RequestError as exc:
            raise RequestError(f"{config}: [{place}.{name}] {exc}") from exc


def _fits(kind: str, value: object) -> bool:
    """Whether a TOML value is of a request field's type; bool is no number here, and lists hold text."""
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        return False
    return any(
        type(value) in KINDS[option.split("[")[0].rpartition(".")[2]]
        for option in kind.split(" | ")
        if option != "None"
    )

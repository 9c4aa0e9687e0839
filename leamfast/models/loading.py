"""From a model SPEC to a model.

SPEC is `demo`, `NAME=WEIGHTS` for a named model (`NAME=random:SEED` for an untrained one), or
`module:factory` for the user's own code; `alias:=SPEC` renames any of them.
"""

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from leamfast.errors import RequestError
from leamfast.models.demo import DEMO_WEIGHTS
from leamfast.models.face_model import FaceModel
from leamfast.models.preprocessing import Preprocessing
from leamfast.models.weights import file_sha256, mismatch, read_state_dict, state_sha256
from leamfast.models.zoo import ZOO, NamedModel, build

__all__ = ["brings_preprocessing", "load_model", "spec_name"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
RESERVED = ("row", "person", "region", "threshold")  # dimensions of the result file
FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load_model(
    spec: str,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    trust_code: bool = False,
    device: str | torch.device | None = None,
) -> FaceModel:
    """The model that a SPEC names, in evaluation mode, its parameters frozen.

    Args:
        spec: see this module's first lines.
        preprocessing: `dict(size=112, channels="rgb", mean=(...), std=(...))`, for a `module:factory`,
            which brings none; a named model has its own.
        trust_code: allows `module:factory`, which runs the user's code.
        device: where the model computes (default: CPU).

    Raises:
        RequestError: the SPEC is malformed, a file is missing or does not fit, or trust is not given.
    """
    alias, rest = _split_alias(spec)
    name, _, source = rest.partition("=")
    if name in ZOO:
        if preprocessing is not None:
            raise RequestError(f"preprocessing must not be given for {name}, which brings its own")
        model = _named(ZOO[name], source, spec)
    elif FACTORY.fullmatch(rest):
        model = _from_factory(rest, preprocessing, trust_code)
    else:
        near = get_close_matches(name, ZOO, n=3)
        raise RequestError(
            f"model {spec!r} is none of the named models ({', '.join(ZOO)}) and no module:factory"
            + (f"; did you mean {' or '.join(near)}?" if near else "")
        )
    if alias:
        model = replace(model, name=alias)
    model.network.to(device or "cpu").eval().requires_grad_(False)
    return model


def spec_name(spec: str) -> str:
    """The name under which the results of a SPEC are stored."""
    alias, rest = _split_alias(spec)
    return alias or (rest.partition("=")[0] if not FACTORY.fullmatch(rest) else rest.partition(":")[2])


def brings_preprocessing(spec: str) -> bool:
    """Whether a SPEC names a model whose preprocessing is known."""
    return FACTORY.fullmatch(_split_alias(spec)[1]) is None


def _split_alias(spec: str) -> tuple[str, str]:
    alias, sign, rest = spec.partition(":=")
    if not sign:
        return "", spec
    if not NAME.fullmatch(alias) or alias in RESERVED:
        raise RequestError(
            f"model alias must be letters, digits, '.', '_' or '-', and none of {', '.join(RESERVED)}, "
            f"got {alias!r} in {spec!r}"
        )
    return alias, rest


def _named(named: NamedModel, source: str, spec: str) -> FaceModel:
    if source.startswith("random:"):
        seed = source.removeprefix("random:")
        if not seed.isdecimal() or int(seed) >= 2**63:
            raise RequestError(
                f"model {spec!r}: random: takes a seed, a whole number below 2^63, got {seed!r}"
            )
        network = build(named, seed=int(seed))
        return FaceModel(named.name, named.architecture, network, named.preprocessing, source)
    if not source:
        if named.weights:
            raise RequestError(
                f"model {named.name} needs its weights: {named.name}=FILE ({named.weights}), "
                f"or {named.name}=random:0 for an untrained one"
            )
        source = str(DEMO_WEIGHTS)
    path = Path(source).expanduser()
    state = read_state_dict(path)
    problem = mismatch(build(named, "meta"), state)
    if problem is not None:
        raise RequestError(f"weights {path} do not fit {named.architecture}: {problem}; {_fitting(state)}")
    broken = next((key for key, tensor in state.items() if not tensor.isfinite().all()), None)
    if broken is not None:
        raise RequestError(f"weights {path} hold values in {broken} that are not finite")
    network = build(named)
    network.load_state_dict(state, strict=False)
    return FaceModel(named.name, named.architecture, network, named.preprocessing, file_sha256(path))


def _fitting(state: Mapping[str, torch.Tensor]) -> str:
    """Which known architecture a state dict fits, in words."""
    tried: dict[str, bool] = {}
    for model in ZOO.values():
        if model.architecture not in tried:
            tried[model.architecture] = mismatch(build(model, "meta"), state) is None
    fits = [name for name, fit in tried.items() if fit]
    return f"they would fit {' or '.join(fits)}" if fits else "they fit no architecture known here"


def _from_factory(spec: str, preprocessing: Mapping[str, Any] | None, trust_code: bool) -> FaceModel:
    if not trust_code:
        raise RequestError(f"model {spec!r} runs code of yours: allow it with --trust-code (trust_code=True)")
    if preprocessing is None:
        raise RequestError(
            f"model {spec!r} brings no preprocessing: give --input-size, --mean, --std and --channels "
            "(preprocessing=dict(size=..., channels=..., mean=..., std=...))"
        )
    module_name, _, factory_name = spec.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # the user's module lies where the command is run
    wanted = Preprocessing.from_mapping(preprocessing)
    try:
        module = importlib.import_module(module_name)
        network = getattr(module, factory_name)()
    except Exception as exc:  # it is the user's code: whatever it raises is said, with its cause
        raise RequestError(f"model {spec!r} cannot be made: {type(exc).__name__}: {exc}") from exc
    if not isinstance(network, nn.Module):
        raise RequestError(f"model {spec!r} must return a torch.nn.Module, got {type(network).__name__}")
    model = FaceModel(
        factory_name, f"{spec} {_source_sha256(module)}", network.eval(), wanted, state_sha256(network)
    )
    try:
        embeddings = model.embed(next(network.parameters()).new_zeros(1, 3, wanted.size, wanted.size))
    except Exception as exc:
        raise RequestError(
            f"model {spec!r} does not take images of {wanted.size} pixels: {_first_line(exc)}"
        ) from exc
    if not isinstance(embeddings, torch.Tensor) or embeddings.ndim != 2:
        raise RequestError(f"model {spec!r} must return embeddings of shape (N, D)")
    return model


def _source_sha256(module: ModuleType) -> str:
    """Hash of the file that a module came from: other code is another model."""
    return file_sha256(Path(module.__file__)) if module.__file__ else "without a file"


def _first_line(exc: Exception) -> str:
    return (str(exc) or type(exc).__name__).splitlines()[0]

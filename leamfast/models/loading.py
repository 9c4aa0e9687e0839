"""From a model SPEC to a model.

SPEC is `demo`, `NAME=WEIGHTS` for a named model (`NAME=random:SEED` for an untrained one), `timm:...` for a
network of timm (see `timm_models`), `FILE.pt` or `FILE.pt2` for an archive, or `module:factory` for the
user's own code; `alias:=SPEC` renames any of them.
"""

import importlib
import os
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

from leamfast.errors import RequestError, first_line
from leamfast.models.checks import check_network
from leamfast.models.compiled import is_program, load_program, read_info
from leamfast.models.demo import DEMO_WEIGHTS
from leamfast.models.face_model import FaceModel
from leamfast.models.preprocessing import Preprocessing
from leamfast.models.timm_models import TimmSpec, is_timm, load_timm
from leamfast.models.weights import file_sha256, mismatch, read_state_dict, state_sha256
from leamfast.models.zoo import ZOO, NamedModel, build, random_seed

__all__ = ["brings_preprocessing", "load_model", "located", "runs_code", "spec_name"]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
RESERVED = ("row", "person", "region", "threshold")  # dimensions of the result file
FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def runs_code(spec: str) -> bool:
    """Whether loading a SPEC runs code that came with it, which needs trust.

    Raises:
        RequestError: the SPEC is malformed.
    """
    return _kind(_split_alias(spec)[1]) in ("factory", "program")


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
        preprocessing: `dict(size=112, channels="rgb", mean=(...), std=(...))`, for what brings none: an
            archive, a `module:factory`, or a network of timm without a configuration.
        trust_code: allows `module:factory`, which runs the user's code.
        device: where the model computes (default: CPU).

    Raises:
        RequestError: the SPEC is malformed, a file is missing or does not fit, trust is not given, or images
            of a batch would influence each other in the network.
    """
    alias, rest = _split_alias(spec)
    kind = _kind(rest)
    if kind == "factory" and not trust_code:
        raise RequestError(f"model {rest!r} runs code of yours: allow it with --trust-code (trust_code=True)")
    if kind == "program" and not trust_code:
        raise RequestError(f"model {rest!r} is compiled code: allow it with --trust-code (trust_code=True)")
    wanted = _preprocessing(rest, preprocessing)
    if kind == "program":
        program = load_program(Path(os.path.expanduser(rest)), device)
        _check_name(alias or program.name, spec)
        return replace(program, name=alias or program.name)
    if kind == "named":
        model = _named(rest)
    elif kind == "timm":
        model = load_timm(TimmSpec.parse(rest), wanted)
    elif kind == "archive":
        model = _from_archive(rest, wanted)
    else:
        model = _from_factory(rest, wanted)
    model = replace(model, name=alias or model.name)
    _check_name(model.name, spec)
    model.network.eval().requires_grad_(False)
    check_network(model.network, rest)
    if kind != "named":
        _try(model, rest)
    model.network.to(device or "cpu")
    return model


def spec_name(spec: str) -> str:
    """The name under which the results of a SPEC are stored."""
    alias, rest = _split_alias(spec)
    if alias:
        return alias
    match _kind(rest):
        case "timm":
            return TimmSpec.parse(rest).name
        case "program":
            return read_info(Path(os.path.expanduser(rest))).model
        case "archive":
            from leamfast.models.archives import archive_name

            return archive_name(Path(os.path.expanduser(rest)))
        case "factory":
            return rest.partition(":")[2]
    return rest.partition("=")[0]


def located(spec: str) -> str:
    """A SPEC, or another word with `=FILE`, with the file's path made absolute: for processes elsewhere."""
    head, equals, file = spec.rpartition("=")
    path = os.path.expanduser(file)
    return f"{head}{equals}{os.path.abspath(path)}" if os.path.isfile(path) else spec


def brings_preprocessing(spec: str) -> bool:
    """Whether a SPEC names a model whose preprocessing is known."""
    rest = _split_alias(spec)[1]
    kind = _kind(rest)
    return TimmSpec.parse(rest).config is not None if kind == "timm" else kind in ("named", "program")


def _kind(rest: str) -> str:
    """What a SPEC without its alias names: `named`, `timm`, `factory`, `archive` or `program`."""
    name = rest.partition("=")[0]
    if name in ZOO:
        return "named"
    if is_timm(rest):
        return "timm"
    if FACTORY.fullmatch(rest):
        return "factory"
    if _is_archive(rest):
        return "program" if is_program(Path(os.path.expanduser(rest))) else "archive"
    near = get_close_matches(name, ZOO, n=3)
    raise RequestError(
        f"model {rest!r} is none of the named models ({', '.join(ZOO)}), no timm:ARCH=FILE, no archive "
        "(FILE.pt, FILE.pt2) and no module:factory" + (f"; did you mean {' or '.join(near)}?" if near else "")
    )


def _is_archive(rest: str) -> bool:
    """Whether a SPEC is a file, or is written like an archive's."""
    return "=" not in rest and (rest.endswith((".pt", ".pt2")) or os.path.isfile(os.path.expanduser(rest)))


def _preprocessing(rest: str, given: Mapping[str, Any] | None) -> Preprocessing | None:
    """What was given for a SPEC that brings none, and None for one that brings its own."""
    if brings_preprocessing(rest):
        if given is not None:
            raise RequestError(
                f"preprocessing must not be given for {rest}, which brings its own: leave it out"
            )
        return None
    if given is None:
        raise RequestError(
            f"model {rest!r} brings no preprocessing: give --input-size, --mean, --std and --channels, or "
            "[models.NAME] in run.toml (preprocessing=dict(size=..., channels=..., mean=..., std=...))"
        )
    return Preprocessing.from_mapping(given)


def _check_name(name: str, spec: str) -> None:
    """Raise unless results can be stored under a name."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise RequestError(
            f"model name or alias must be letters, digits, '.', '_' or '-', and none of "
            f"{', '.join(RESERVED)}, got {name!r} in {spec!r}: choose another with alias:=SPEC"
        )


def _try(model: FaceModel, spec: str) -> None:
    """Raise unless a network takes images of its size and returns embeddings."""
    size = model.preprocessing.size
    parameter = next(model.network.parameters(), torch.empty(0))
    try:
        model.embed(parameter.new_zeros(1, 3, size, size))
    except RequestError:
        raise
    except Exception as exc:  # whatever the network raises is said, with its cause
        raise RequestError(
            f"model {spec!r} does not take images of {size} pixels: {first_line(exc)}"
        ) from exc


def _split_alias(spec: str) -> tuple[str, str]:
    alias, sign, rest = spec.partition(":=")
    if not sign:
        return "", spec
    _check_name(alias, spec)
    return alias, rest


def _named(rest: str) -> FaceModel:
    name, _, source = rest.partition("=")
    named = ZOO[name]
    seed = random_seed(source, rest)
    if seed is not None:
        network = build(named, seed=seed)
        return FaceModel(name, named.architecture, network, named.preprocessing, source)
    if not source:
        if named.weights:
            raise RequestError(
                f"model {name} needs its weights: {name}=FILE ({named.weights}), "
                f"or {name}=random:0 for an untrained one"
            )
        source = str(DEMO_WEIGHTS)
    path = Path(os.path.expanduser(source))
    state = _used(named, read_state_dict(path))
    problem = mismatch(build(named, "meta"), state)
    if problem is not None:
        raise RequestError(f"weights {path} do not fit {named.architecture}: {problem}; {_fitting(state)}")
    network = build(named)
    network.load_state_dict(state, strict=False)
    return FaceModel(name, named.architecture, network, named.preprocessing, file_sha256(path))


def _used(named: NamedModel, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of a state dict for which a named model has a use."""
    return {key: tensor for key, tensor in state.items() if not key.startswith(named.ignored)}


def _fitting(state: Mapping[str, torch.Tensor]) -> str:
    """Which known architecture a state dict fits, in words."""
    tried: dict[str, bool] = {}
    for model in ZOO.values():
        if model.architecture not in tried:
            tried[model.architecture] = mismatch(build(model, "meta"), _used(model, state)) is None
    fits = [name for name, fit in tried.items() if fit]
    return f"they would fit {' or '.join(fits)}" if fits else "they fit no architecture known here"


def _from_archive(rest: str, wanted: Preprocessing | None) -> FaceModel:
    from leamfast.models.archives import archive_name, load_archive

    assert wanted is not None
    path = Path(os.path.expanduser(rest))
    network, sha256 = load_archive(path, wanted.size)
    return FaceModel(archive_name(path), "archive", network, wanted, sha256)


def _from_factory(rest: str, wanted: Preprocessing | None) -> FaceModel:
    assert wanted is not None
    module_name, _, factory_name = rest.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # the user's module lies where the command is run
    try:
        module = importlib.import_module(module_name)
        network = getattr(module, factory_name)()
    except Exception as exc:  # it is the user's code: whatever it raises is said, with its cause
        raise RequestError(f"model {rest!r} cannot be made: {type(exc).__name__}: {exc}") from exc
    if not isinstance(network, nn.Module):
        raise RequestError(f"model {rest!r} must return a torch.nn.Module, got {type(network).__name__}")
    architecture = f"{rest} {_source_sha256(module)}"
    return FaceModel(factory_name, architecture, network, wanted, state_sha256(network))


def _source_sha256(module: ModuleType) -> str:
    """Hash of the file that a module came from: other code is another model."""
    return file_sha256(Path(module.__file__)) if module.__file__ else "without a file"

"""Weights from untrusted files: tensors only, matched strictly, hashed."""

import hashlib
import os
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from leamfast.errors import RequestError, first_line
from leamfast.models.downloads import WEB_PAGE, is_web_page

__all__ = ["file_sha256", "mismatch", "read_state_dict", "state_sha256", "tensors_sha256"]

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.")
NETWORK, HEAD = "model.", "head."  # parts of the Lightning modules of AdaFace

# What the checkpoints of these carry beside tensors is about training: settings, callbacks, counters.
TRAINING = ("pytorch_lightning.", "lightning.", "lightning_fabric.")


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a `.safetensors` or torch checkpoint, on the CPU.

    Only tensors are read (`weights_only=True`): a checkpoint that would run code is refused. The wrappers
    `{"state_dict": ...}` and the prefixes `module.` and `model.` are taken off, and the classifier that a
    Lightning checkpoint holds beside the network, as `head.`, is left out.

    Raises:
        RequestError: the file is missing, unreadable, or holds no state dict.
    """
    if not os.path.isfile(path):
        raise RequestError(f"weights file {path} does not exist")
    try:
        page = is_web_page(path)
    except OSError as exc:
        raise RequestError(f"weights file {path} cannot be read: {exc.strerror}") from exc
    if page:
        raise RequestError(f"weights file {path} holds no weights: {WEB_PAGE}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as exc:
            raise RequestError(f"weights file {path} is not readable as safetensors: {exc}") from exc
    try:
        content = _tensors_only(path)
    except pickle.UnpicklingError as exc:
        raise RequestError(
            f"weights file {path} holds more than tensors, and nothing else is unpickled "
            "because that could run code: save its state_dict() alone"
        ) from exc
    except Exception as exc:  # damaged files make the reader raise nearly anything
        raise RequestError(
            f"weights file {path} is not readable as a torch checkpoint: {first_line(exc)}"
        ) from exc
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    named = isinstance(content, Mapping) and all(isinstance(key, str) for key in content)
    if not named or not content or not all(map(torch.is_tensor, content.values())):
        raise RequestError(f"weights file {path} holds no state dict (tensors by name) but {_kind(content)}")
    state = dict(content)
    if all(key.startswith((NETWORK, HEAD)) for key in state) and any(k.startswith(NETWORK) for k in state):
        state = {key: value for key, value in state.items() if key.startswith(NETWORK)}
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


class _Dropped:
    """Stands in for a class of a training framework: whatever is made of it is an empty mapping."""

    def __new__(cls, *_: object) -> OrderedDict[object, object]:  # type: ignore[misc]
        return OrderedDict()


def _tensors_only(path: Path) -> Any:
    """The content of a torch checkpoint, in which nothing but tensors and plain values may be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")  # refused or read, not half understood
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            names = _training_classes(path)
            if not names:
                raise
        stand_ins: list[Any] = [(type(name, (_Dropped,), {}), name) for name in names]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)


def _training_classes(path: Path) -> list[str]:
    """Names of what a checkpoint holds beside tensors; none where any of it is not about training."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a file that cannot be looked through stays refused
        return []
    known = all(name.startswith(TRAINING) or name == "argparse.Namespace" for name in names)
    return names if known else []


def state_sha256(network: nn.Module) -> str:
    """Hex SHA-256 over the names and values of a network's state."""
    return tensors_sha256(network.state_dict())


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 over names and values, whatever the file that they came from."""
    total = hashlib.sha256()
    for key, tensor in state.items():
        total.update(f"{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def mismatch(net: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """The first way in which a state dict does not fit a network, or None where it fits.

    `num_batches_tracked` counters, which play no part in evaluation, may be absent.
    """
    wanted = net.state_dict()
    for key, tensor in wanted.items():
        if key not in state:
            if not key.endswith("num_batches_tracked"):
                return f"{key} is missing"
        elif state[key].shape != tensor.shape:
            return f"{key} has shape {tuple(state[key].shape)} where {tuple(tensor.shape)} is needed"
    unexpected = next((key for key in state if key not in wanted), None)
    return None if unexpected is None else f"{unexpected} is unexpected"


def _kind(content: object) -> str:
    return f"a {type(content).__name__}" + ("" if content else " that is empty")

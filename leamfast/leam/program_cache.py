"""Compiled programs that are kept for the next time, in the user's cache."""

import hashlib
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from leamfast.errors import RequestError
from leamfast.leam import compiling
from leamfast.leam.recording import Recording
from leamfast.models.compiled import Passes
from leamfast.models.devices import processor_name
from leamfast.models.weights import tensors_sha256

__all__ = ["cache_path", "cached", "keep"]

KEPT = 20  # programs


def cache_path(backend: str, device: torch.device, recording: Recording) -> Path:
    """The file of a compiled recording: named by a hash of all that it depends on."""
    processor = processor_name(str(device)) if backend == "inductor" else ""
    total = hashlib.sha256(f"{backend} {device.type} {processor} {torch.__version__}".encode())
    total.update(Path(compiling.__file__).read_bytes())
    for graph in (recording.forward, recording.backward):
        total.update(graph.code.encode())
        for node in graph.graph.nodes:
            if node.op == "placeholder":  # two sizes of images may give graphs that read the same
                total.update(f"{node.meta['val'].dtype} {tuple(node.meta['val'].shape[1:])}".encode())
        total.update(tensors_sha256(graph.state_dict()).encode())
    return _folder() / f"{total.hexdigest()}{'.pt2' if backend == 'inductor' else '.pt'}"


def keep(name: str, content: bytes) -> Path:
    """A program that another machine of the same kind compiled, put where this one keeps its own.

    Args:
        name: of its file, as `cache_path` gives it.
        content: of its file.
    """
    if Path(name).name != name:
        raise ValueError(f"name must be that of a file without folders, got {name!r}")
    path = _folder() / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{uuid.uuid4().hex}-{name}")
        temporary.write_bytes(content)
        temporary.replace(path)
        _prune(path.parent)
    return path


def _folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "leamfast" / "programs"


def cached(path: Path, load: Callable[[Path], Passes], write: Callable[[Path], None]) -> Passes:
    """The program in a file of the cache, which is written where it is not there or cannot be loaded.

    Raises:
        RequestError: the folder cannot be written, or what `load` and `write` raise.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.is_file():
            os.utime(path)  # the newest are kept
            with suppress(RequestError):
                return load(path)
        write(path)
        _prune(folder)
    except OSError as exc:
        raise RequestError(
            f"compiled programs cannot be kept in {folder} ({exc.strerror}): set XDG_CACHE_HOME to a folder "
            "that can be written, or use backend eager"
        ) from exc
    return load(path)


def _prune(folder: Path) -> None:
    """Delete all but the newest programs; another process may do the same."""
    ages = {}
    for path in folder.glob("[0-9a-f]*.pt*"):
        with suppress(OSError):
            ages[path] = path.stat().st_mtime
    for path in sorted(ages, key=lambda path: ages[path], reverse=True)[KEPT:]:
        path.unlink(missing_ok=True)

"""torch.jit, which is deprecated and warns at every call: the only place that calls it."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["load_script", "save_script"]

_jit: Any = torch.jit


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.\w+` is (deprecated|not supported)", Warning)
        # of the annotations in torch's own classes
        warnings.filterwarnings("ignore", "The TorchScript type system doesn't support", UserWarning)
        yield


def save_script(modules: Mapping[str, nn.Module], path: Path, texts: Mapping[str, str]) -> None:
    """Compile modules to TorchScript and save them side by side in one archive.

    Args:
        modules: name -> module whose results need no gradient.
        path: the archive.
        texts: name -> text, kept below `extra/` in it.
    """
    with _quiet():
        both = nn.Module()
        for name, module in modules.items():
            setattr(both, name, module)
        _jit.save(_jit.script(both.eval()), str(path), _extra_files=dict(texts))


def load_script(path: Path) -> dict[str, Any]:
    """The modules of an archive as `save_script` writes it, each frozen by itself."""
    with _quiet():
        both = _jit.load(str(path)).eval()
        return {name: _jit.freeze(module) for name, module in both.named_children()}

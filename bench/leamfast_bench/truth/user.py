"""A method of the user's: code of theirs, scored as ours and the peers' are."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from leamfast.errors import RequestError
from leamfast_bench.truth.methods import Maps, Method, Query
from leamfast_bench.truth.peers import whole

__all__ = ["user_method"]


def user_method(spec: str, trust_code: bool) -> Method:
    """A method of the user's: `module:function`.

    The function takes a `leamfast.FaceModel`, preprocessed images (N, 3, H, W) and unit references (N, D),
    and returns maps (N, h, w), or a mapping of names to such maps.

    Raises:
        RequestError: the code is not trusted, or cannot be had.
    """
    if not trust_code:
        raise RequestError(f"--method {spec} runs code of yours: allow it with --trust-code")
    module, colon, name = spec.partition(":")
    if not colon:
        raise RequestError(f"--method must be module:function, got {spec!r}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # the user's module lies where the command is run
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as exc:  # it is the user's code: whatever it raises is said, with its cause
        raise RequestError(f"--method {spec} cannot be had: {type(exc).__name__}: {exc}") from exc

    def method(query: Query) -> Iterator[Maps]:
        try:
            made = function(query.model, query.images, query.mean)
        except Exception as exc:
            raise RequestError(f"--method {spec} failed: {type(exc).__name__}: {exc}") from exc
        named = made if isinstance(made, Mapping) else {"": made}
        if not named:
            raise RequestError(f"--method {spec} must return maps, got none")
        for label, maps in named.items():
            if not isinstance(maps, Tensor) or maps.ndim != 3 or len(maps) != len(query.images):
                raise RequestError(f"--method {spec} must return tensors of shape (N, h, w)")
            if maps.is_complex() or 0 in maps.shape:
                raise RequestError(
                    f"--method {spec} must return real maps with cells, got {maps.dtype} {tuple(maps.shape)}"
                )
            maps = maps.detach().float()
            if not maps.isfinite().all():
                raise RequestError(f"--method {spec} must return maps that are finite in float32")
            yield whole(spec, maps, str(label))

    return method

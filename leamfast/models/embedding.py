"""The embedding among whatever a network returns."""

from collections.abc import Mapping
from dataclasses import is_dataclass

from torch import Tensor

from leamfast.errors import RequestError

__all__ = ["as_embedding"]

KEYS = ("embedding", "embeddings", "features", "feature", "feat", "pooler_output")


def as_embedding(output: object, model: str) -> Tensor:
    """What a network returned -> embeddings, (N, D), floating point.

    A tensor (N, D) or (N, D, 1, 1) is one. Of named values it is the first of `embedding`, `embeddings`,
    `features`, `feature`, `feat` and `pooler_output` that is one, else the only one; of a sequence the first
    with D > 1, for a column of norms may stand beside it.

    Args:
        output: a tensor, a mapping, a dataclass, or a sequence.
        model: the model's name, for the error.

    Raises:
        RequestError: there is none, or several without a name that says which.
    """
    found = _vectors(output)
    if found is not None:
        return found
    named = _named(output)
    if named is not None:
        vectors = {key: v for key, value in named.items() if (v := _vectors(value)) is not None}
        key = next((key for key in KEYS if key in vectors), None)
        if key is None and len(vectors) == 1:
            (key,) = vectors
        if key is not None:
            return vectors[key]
    elif isinstance(output, tuple | list):
        wide = (v for value in output if (v := _vectors(value)) is not None and v.shape[1] > 1)
        found = next(wide, None)
        if found is not None:
            return found
    raise RequestError(
        f"model {model} must return embeddings of shape (N, D), alone, named embedding or first in a tuple, "
        f"got {_described(output)}"
    )


def _vectors(value: object) -> Tensor | None:
    """The value as (N, D), where it is floating-point vectors."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    if value.ndim == 4 and tuple(value.shape[2:]) == (1, 1):
        return value.flatten(1)
    return value if value.ndim == 2 else None


def _named(output: object) -> Mapping[str, object] | None:
    """The values of a mapping, a dataclass or a named tuple by name; None where they have no names."""
    if isinstance(output, Mapping):
        return output
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        return output._asdict()
    return vars(output) if is_dataclass(output) and not isinstance(output, type) else None


def _described(output: object) -> str:
    if isinstance(output, Tensor):
        return f"{str(output.dtype).removeprefix('torch.')} {tuple(output.shape)}"
    named = _named(output)
    if named is not None:
        inside = [f"{key}: {_described(value)}" for key, value in named.items()]
    elif isinstance(output, tuple | list):
        inside = [_described(value) for value in output]
    else:
        return f"a {type(output).__name__}"
    return f"a {type(output).__name__} of [{', '.join(inside)}]"

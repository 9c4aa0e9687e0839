"""What the nodes of a TorchScript graph say, and the steps that are plain functions."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from leamfast.models.steps import Frame, Step, Values

__all__ = ["bind", "debug_names", "function_step", "is_plain", "names_of", "without_tensors"]


def debug_names(values: Any) -> list[str]:
    """Names of values, each unique in its graph."""
    return [value.debugName() for value in values]


def names_of(node: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of a node's inputs and outputs."""
    return tuple(debug_names(node.inputs())), tuple(debug_names(node.outputs()))


def function_step(node: Any, function: Callable[..., Any]) -> Step:
    """A step that calls a Python function with all inputs; a number becomes a float where one is declared."""
    needs, gives = names_of(node)
    real = len(gives) == 1 and node.output().type().kind() == "FloatType"

    def run(values: Values, frame: Frame) -> None:
        result = function(*[values[name] for name in needs])
        bind(values, gives, torch.sym_float(result) if real else result)

    return Step(run, needs, gives)


def bind(values: Values, names: Sequence[str], result: Any) -> None:
    """Gives a result its name, or the parts of several results their names."""
    if len(names) == 1:
        values[names[0]] = result
    else:
        values.update(zip(names, result or (), strict=True))


def without_tensors(given: Sequence[Any], scalars: Sequence[Any]) -> list[Any] | None:
    """The values with numbers for constant tensors that hold one; None where another is a tensor."""
    plain = [value if scalar is None else scalar for value, scalar in zip(given, scalars, strict=True)]
    return None if any(isinstance(value, Tensor) for value in plain) else plain


def is_plain(value: Any) -> bool:
    """Whether a value is of Python's own types, all the way down."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return is_plain(list(value.items()))
    return value is None or isinstance(value, bool | int | float | complex | str)

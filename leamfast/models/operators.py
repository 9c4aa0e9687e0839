"""Which torch operators an archive may use, and what makes a call of one unfit for explaining."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from leamfast.errors import RequestError

__all__ = ["DTYPES", "FILE_OPERATORS", "NAMESPACES", "Operator", "find_operator", "refuse_training"]

NAMESPACES = ("aten", "prims", "torchvision")
FILE_OPERATORS = ("aten::from_file", "aten::save")  # they read and write files, which no network needs

# By their numbers in TorchScript; the gaps are the types of quantised tensors.
DTYPES: tuple[torch.dtype | None, ...] = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.complex32,
    torch.complex64,
    torch.complex128,
    torch.bool,
    None,
    None,
    None,
    torch.bfloat16,
)


def find_operator(name: str) -> OpOverload | None:
    """The operator `namespace::name.overload`, where it exists and an archive may use it."""
    base, _, overload = name.partition(".")
    namespace, _, operator = base.partition("::")
    if namespace not in NAMESPACES or base in FILE_OPERATORS or not torch._C._dispatch_has_kernel(name):
        return None
    if base == "aten::_convolution":  # recorded by a trace; its further arguments choose between backends
        return torch.ops.aten.convolution.default
    return getattr(getattr(getattr(torch.ops, namespace), operator), overload or "default")


class Operator:
    """A torch operator, called with values of its arguments `names`; a call as in training raises.

    Args:
        op: the operator.
        names: the arguments whose values are given, in this order; those that it does not take are left out.
        where: the name of the module that calls it.
    """

    def __init__(self, op: OpOverload, names: Sequence[str], where: str) -> None:
        arguments = op._schema.arguments
        taken = {argument.name for argument in arguments}
        self.op = op
        self.where = where
        self._names = tuple(names)
        self._positional = 0
        for name, argument in zip(names, arguments, strict=False):
            if name != argument.name or argument.kwarg_only:
                break
            self._positional += 1
        self._keywords = tuple(
            (i, name) for i, name in enumerate(names) if i >= self._positional and name in taken
        )
        self._guarded = bool(taken & {"train", "training"}) or "batch_norm" in op._schema.name

    def __call__(self, values: Sequence[Any]) -> Any:
        if self._guarded:
            refuse_training(str(self.op), dict(zip(self._names, values, strict=True)), self.where)
        return self.op(*values[: self._positional], **{name: values[i] for i, name in self._keywords})


def refuse_training(operator: str, given: Mapping[str, Any], where: str) -> None:
    """Raise where an operator is called as in training.

    Args:
        operator: its name.
        given: values of its arguments, as far as they are known.
        where: the name of the module that calls it.

    Raises:
        RequestError: it works on the statistics of the batch, or draws at random.
    """
    if given.get("train") or given.get("training") or "with_update" in operator:
        raise RequestError(
            f"module {where!r} was saved in training mode ({operator}), where images influence each other or "
            "chance plays a part: call .eval() on the model before saving it"
        )
    if "no_stats" in operator or ("batch_norm" in operator and given.get("running_mean", 0) is None):
        raise RequestError(
            f"module {where!r} has no running statistics ({operator}), so that images of a batch influence "
            "each other: save a model with track_running_stats=True"
        )

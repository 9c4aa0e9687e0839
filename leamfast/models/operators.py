"""Which torch operators an archive may use, and what makes a call of one unfit for explaining."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from leamfast.errors import RequestError

__all__ = ["DTYPES", "FILE_OPERATORS", "Operator", "find_operator"]

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
    """A torch operator, called with values of its arguments `names`.

    Calls of a network in training mode, in which images influence each other or chance plays a part, raise
    RequestError.

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
            self._refuse_training(dict(zip(self._names, values, strict=True)))
        return self.op(*values[: self._positional], **{name: values[i] for i, name in self._keywords})

    def _refuse_training(self, named: Mapping[str, Any]) -> None:
        title = self.op._schema.name
        if named.get("train") or named.get("training") or "with_update" in title:
            raise RequestError(
                f"module {self.where!r} was saved in training mode ({title}), where images influence each "
                "other or chance plays a part: call .eval() on the model before saving it"
            )
        if "batch_norm" in title and named.get("running_mean") is None:
            raise RequestError(
                f"module {self.where!r} has no running statistics ({title}), so that images of a batch "
                "influence each other: save a model with track_running_stats=True"
            )

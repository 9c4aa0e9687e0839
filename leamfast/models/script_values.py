"""TorchScript's operations on numbers, lists and strings, in Python.

Sizes pass through them as they are, so that a symbolic size stays symbolic. They are looked up by name
without overload: where types matter, Python decides as TorchScript did.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from leamfast.models.operators import DTYPES

__all__ = ["ALWAYS", "NUMBERS"]

Function = Callable[..., Any]


def _size(tensor: Tensor, dim: int | None = None) -> Any:
    return list(tensor.shape) if dim is None else tensor.shape[dim]


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _divide(a: Any, b: Any, rounding: str | None = None) -> Any:
    if rounding == "floor":
        return a // b
    quotient = a / b
    return math.trunc(quotient) if rounding == "trunc" else quotient


def _to(value: Any, *options: Any) -> Any:
    """A number stays a number, of the type that is asked for."""
    dtype = next((DTYPES[option] for option in options if type(option) is int), None)
    if dtype is None:
        return value
    return torch.sym_float(value) if dtype.is_floating_point else torch.sym_int(value)


def _tensor_to(tensor: Tensor, *options: Any) -> Tensor:
    """Tensor.to with TorchScript's loose arguments: a device, a type as a number, another tensor, flags."""
    flags = [option for option in options if isinstance(option, bool)]
    wanted: list[Any] = []
    for option in options:
        if isinstance(option, torch.device | Tensor):
            wanted.append(option)
        elif type(option) is int:
            wanted.append(DTYPES[option])
    return tensor.to(*wanted, *flags) if wanted else tensor


def _tensor(data: Any, dtype: int | None, device: torch.device | None, *_: Any) -> Tensor:
    return torch.tensor(data, dtype=None if dtype is None else DTYPES[dtype], device=device)


def _slice(values: Any, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return values[start:end:step]


def _set_item(values: Any, key: Any, value: Any) -> Any:
    values[key] = value
    return values


def _append(values: list[Any], value: Any) -> list[Any]:
    values.append(value)
    return values


def _extend(values: list[Any], others: list[Any]) -> None:
    values.extend(others)


def _range_length(start: int, end: int, step: int) -> int:
    return len(range(start, end, step))


ALWAYS: dict[str, Function] = {
    "aten::size": _size,
    "aten::sym_size": _size,
    "aten::dim": lambda tensor: tensor.dim(),
    "aten::numel": lambda tensor: tensor.numel(),
    "aten::sym_numel": lambda tensor: tensor.numel(),
    "aten::len": lambda value: value.shape[0] if isinstance(value, Tensor) else len(value),
    "aten::item": _number,
    "aten::Int": lambda value: torch.sym_int(_number(value)),
    "aten::Float": lambda value: torch.sym_float(_number(value)),
    "aten::Bool": lambda value: bool(_number(value)),
    "aten::IntImplicit": _number,
    "aten::FloatImplicit": _number,
    "aten::ScalarImplicit": _number,
    "prim::dtype": lambda tensor: DTYPES.index(tensor.dtype),
    "prim::shape": _size,
    "prim::is_cuda": lambda tensor: tensor.is_cuda,
    "prim::is_nested": lambda tensor: tensor.is_nested,
    "prim::requires_grad": lambda tensor: tensor.requires_grad,
    "aten::is_grad_enabled": torch.is_grad_enabled,
    "aten::is_autocast_enabled": lambda: torch.is_autocast_enabled("cuda"),
    "aten::is_autocast_cpu_enabled": lambda: torch.is_autocast_enabled("cpu"),
    "prim::type": lambda device: device.type,
    "prim::NumToTensor": lambda value: value,
    "prim::ImplicitTensorToNum": _number,
    "prim::unchecked_cast": lambda value: value,
    "prim::unchecked_unwrap_optional": lambda value: value,
    "prim::ListConstruct": lambda *values: list(values),
    "prim::TupleConstruct": lambda *values: values,
    "prim::DictConstruct": lambda *values: dict(zip(values[::2], values[1::2], strict=True)),
    "prim::TupleIndex": operator.getitem,
    "aten::cpu": lambda tensor: tensor,
    "aten::cuda": lambda tensor: tensor,
    "aten::warn": lambda *_: None,
    "prim::Print": lambda *_: None,
}
"""Done in Python whatever the values are."""

NUMBERS: dict[str, Function] = {
    "aten::add": lambda a, b, alpha=1: a + (b if alpha == 1 else b * alpha),
    "aten::sub": lambda a, b, alpha=1: a - b * alpha,
    "aten::rsub": lambda a, b, alpha=1: b - a * alpha,
    "aten::mul": operator.mul,
    "aten::div": _divide,
    "aten::true_divide": operator.truediv,
    "aten::floordiv": operator.floordiv,
    "aten::floor_divide": operator.floordiv,
    "aten::remainder": operator.mod,
    "aten::pow": operator.pow,
    "aten::neg": operator.neg,
    "aten::abs": abs,
    "prim::abs": abs,
    "aten::eq": operator.eq,
    "aten::ne": operator.ne,
    "aten::lt": operator.lt,
    "aten::le": operator.le,
    "aten::gt": operator.gt,
    "aten::ge": operator.ge,
    "aten::__and__": operator.and_,
    "aten::__or__": operator.or_,
    "aten::__xor__": operator.xor,
    "aten::__not__": operator.not_,
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::ceil": math.ceil,
    "aten::floor": math.floor,
    "aten::round": round,
    "aten::sqrt": torch.sym_sqrt,
    "aten::log": math.log,
    "aten::exp": math.exp,
    "aten::sum": sum,
    "aten::all": all,
    "aten::any": any,
    "prim::min": lambda a, *b: torch.sym_min(a, *b) if b else min(a),
    "prim::max": lambda a, *b: torch.sym_max(a, *b) if b else max(a),
    "aten::__contains__": operator.contains,
    "aten::__getitem__": operator.getitem,
    "aten::_set_item": _set_item,
    "aten::slice": _slice,
    "aten::append": _append,
    "aten::extend": _extend,
    "aten::list": list,
    "aten::copy": lambda values: values.copy(),
    "aten::keys": list,
    "aten::values": lambda mapping: list(mapping.values()),
    "aten::items": lambda mapping: list(mapping.items()),
    "aten::__range_length": _range_length,
    "aten::__derive_index": lambda index, start, step: start + index * step,
    "aten::format": lambda text, *values: text.format(*values),
    "aten::str": str,
    "aten::tensor": _tensor,
    "aten::to": lambda value, *options: (_tensor_to if isinstance(value, Tensor) else _to)(value, *options),
    "aten::detach": lambda value: value,
    "aten::clone": lambda value, *_: value,
    "aten::contiguous": lambda value, *_: value,
}
"""Done in Python where no value is a tensor, or where torch has no such operator on tensors."""

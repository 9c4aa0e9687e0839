"""The graph of a torch.export archive as a flat list of operations.

Blocks under `torch.no_grad()` or autocast, which the archive keeps as graphs of their own, are laid out in
line; checks of what the exporter assumed are left out.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from leamfast.errors import RequestError
from leamfast.models.export_arguments import SYMBOLIC, Ref, Stored, read_argument
from leamfast.models.operators import Operator, find_operator
from leamfast.models.scopes import autocast
from leamfast.models.script_values import ALWAYS

__all__ = ["Call", "Flat", "Operation", "flatten"]

Scope = Callable[[torch.device], AbstractContextManager[Any]]
Scopes = tuple[Scope, ...]

STORED = ("parameter", "buffer", "tensor_constant")
CHECKS = re.compile(r"torch\.ops\.aten\.(_assert_\w+|_assert|sym_constrain_range\w*)\.\w+")
TARGET = re.compile(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)")
UNSTACKED = "_empty_nn_module_stack"
WRAPPER = re.compile(r"torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)")
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            *("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "pos", "lshift", "rshift"),
            *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "getitem"),
        )
    },
    **{f"torch.{name}": getattr(torch, name) for name in ("sym_int", "sym_float", "sym_not", "sym_ite")},
    **{f"torch.{name}": getattr(torch, name) for name in ("sym_max", "sym_min", "sym_sqrt")},
    "torch._sym_sqrt": torch.sym_sqrt,
    "math.trunc": math.trunc,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
}


@dataclass(frozen=True)
class Call:
    """One call of a module: what tells it from others, the module's dotted name, and its class."""

    key: str
    path: str
    kind: str


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        run: what it does with the values of its arguments.
        arguments: `Ref`, `Stored`, `Device`, lists of them, or plain values.
        outputs: names of what it gives.
        several: whether it gives a list or tuple of them.
        calls: the modules in whose forward pass it is, outermost first, without the network itself.
        scopes: what it runs under, outermost first.
        symbolic: whether it only computes with sizes, so that it can be done again anywhere.
    """

    run: Callable[[Sequence[Any]], Any]
    arguments: Sequence[Any]
    outputs: tuple[str, ...]
    several: bool
    calls: tuple[Call, ...]
    scopes: tuple[Scope, ...]
    symbolic: bool


@dataclass(frozen=True)
class Flat:
    """A program as a list.

    Attributes:
        operations: in order.
        images: name of its input.
        outputs: `Ref`, `Stored` or plain values.
        single: whether it returns its output as it is, and not in a tuple.
    """

    operations: Sequence[Operation]
    images: str
    outputs: Sequence[Any]
    single: bool


def flatten(program: Mapping[str, Any]) -> Flat:
    """The operations of a program, from its JSON.

    Raises:
        RequestError: it holds something that is not known here, or changes its own state.
    """
    module = program["graph_module"]
    known: dict[str, Any] = {}
    images = []
    for spec in module["signature"]["input_specs"]:
        ((kind, content),) = spec.items()
        if kind in STORED:
            known[content["arg"]["name"]] = Stored.of(content[f"{kind}_name"])
        elif kind == "user_input" and "as_tensor" in content["arg"]:
            images.append(content["arg"]["as_tensor"]["name"])
            known[images[-1]] = Ref(images[-1])
        elif kind not in ("user_input", "constant_input"):
            raise RequestError(f"an input of kind {kind} is not known here")
    if len(images) != 1:
        raise RequestError(f"the program takes {len(images)} tensors where it is given one, of images")
    changes = [kind for spec in module["signature"]["output_specs"] for kind in spec if kind != "user_output"]
    if changes:
        raise RequestError(
            f"the program changes its own state ({changes[0]}), as in training mode: "
            "call .eval() on the model before exporting it"
        )
    reader = _Reader()
    outputs = reader.graph(module["graph"], known, "", ())
    (entry,) = (entry for entry in module["module_call_graph"] if entry["fqn"] == "")
    single = json.loads(entry["signature"]["out_spec"])[1]["type"] is None
    return Flat(reader.operations, images[0], outputs, single)


class _Reader:
    """Lays out graphs in line."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.calls: tuple[Call, ...] = ()

    def graph(
        self, graph: Mapping[str, Any], known: dict[str, Any], prefix: str, scopes: Scopes
    ) -> list[Any]:
        """Adds the operations of a graph; what its outputs are.

        Args:
            graph: its JSON.
            known: name in the graph -> argument that stands for it.
            prefix: of the names of its values among all values.
            scopes: what it runs under.
        """
        for node in graph["nodes"]:
            wrapper = WRAPPER.fullmatch(node["target"])
            if wrapper is not None:
                self.wrapped(node, wrapper[1], known, f"{prefix}{len(self.operations)}/", scopes)
            elif not CHECKS.fullmatch(node["target"]):
                self.operations.append(self.operation(node, known, prefix, scopes))
        return [read_argument(output, known) for output in graph["outputs"]]

    def wrapped(
        self, node: Mapping[str, Any], kind: str, known: dict[str, Any], prefix: str, scopes: Scopes
    ) -> None:
        """A graph under a scope: its inputs and outputs are names for values outside."""
        position = next(i for i, entry in enumerate(node["inputs"]) if "as_graph" in entry["arg"])
        given = [read_argument(entry["arg"], known) for entry in node["inputs"][:position]]
        values = [read_argument(entry["arg"], known) for entry in node["inputs"][position + 1 :]]
        inner = node["inputs"][position]["arg"]["as_graph"]["graph"]
        inputs = [_name(entry) for entry in inner["inputs"]]
        scope = partial(autocast, *given[:3]) if kind == "autocast" else partial(_grad_mode, given[0])
        found = self.graph(inner, dict(zip(inputs, values, strict=True)), prefix, (*scopes, scope))
        names, _ = _outputs(node["outputs"])
        known.update(zip(names, found, strict=True))

    def operation(
        self, node: Mapping[str, Any], known: dict[str, Any], prefix: str, scopes: Scopes
    ) -> Operation:
        stack = node["metadata"].get("nn_module_stack", UNSTACKED)
        if not stack.startswith(UNSTACKED):  # what the exporter adds itself stays where it stands
            self.calls = _calls(stack)
        names, several = _outputs(node["outputs"])
        run = self.function(node)
        arguments = [read_argument(entry["arg"], known) for entry in node["inputs"]]
        known.update((name, Ref(prefix + name)) for name in names)
        symbolic = bool(node["outputs"]) and all(
            kind in SYMBOLIC for output in node["outputs"] for kind in output
        )
        outputs = tuple(prefix + name for name in names)
        return Operation(run, arguments, outputs, several, self.calls, scopes, symbolic)

    def function(self, node: Mapping[str, Any]) -> Callable[[Sequence[Any]], Any]:
        """What an operation does with the values of its arguments."""
        target, where = node["target"], self.calls[-1].path if self.calls else ""
        if target in FUNCTIONS:
            return partial(_call, FUNCTIONS[target])
        match = TARGET.fullmatch(target)
        if match is not None:
            name = f"{match[1]}::{match[2]}"
            if name in ALWAYS:
                return partial(_call, ALWAYS[name])
            found = find_operator(name if match[3] == "default" else f"{name}.{match[3]}")
            if found is not None:
                return Operator(found, [entry["name"] for entry in node["inputs"]], where)
        raise RequestError(f"module {where!r} uses {target}, which is not known here")


def _call(function: Callable[..., Any], values: Sequence[Any]) -> Any:
    return function(*values)


def _grad_mode(enabled: bool, device: torch.device) -> AbstractContextManager[Any]:
    return torch.set_grad_enabled(enabled)


def _name(content: Mapping[str, Any]) -> str:
    ((kind, value),) = content.items()
    return value["as_name"] if kind in SYMBOLIC else value["name"]


def _outputs(contents: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], bool]:
    """Names of an operation's outputs, and whether it gives a list or tuple of them."""
    if len(contents) == 1 and "as_tensors" in contents[0]:
        return tuple(part["name"] for part in contents[0]["as_tensors"]), True
    return tuple(map(_name, contents)), len(contents) > 1


def _calls(stack: str) -> tuple[Call, ...]:
    """The modules of an operation, from text `key,path,class;key,path,class;...`."""
    calls = []
    for entry in stack.split(";"):
        key, path, kind = entry.split(",", 2)
        path = re.sub(r"@\d+$", "", path)
        if path:
            calls.append(Call(f"{key},{path}", path, kind.rpartition(".")[2]))
    return tuple(calls)

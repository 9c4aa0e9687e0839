"""A TorchScript graph turned into steps that run in Python."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from leamfast.errors import RequestError
from leamfast.models.operators import Operator, find_operator
from leamfast.models.scopes import SCOPES, Scope
from leamfast.models.script_nodes import (
    bind,
    debug_names,
    function_step,
    is_plain,
    names_of,
    without_tensors,
)
from leamfast.models.script_values import ALWAYS, NUMBERS
from leamfast.models.steps import Block, Frame, Step, Values, below

__all__ = ["Graph", "Owner", "Unknown", "read_graph"]

OPEN = "with"  # the values hold under this name, which no value of a graph has, what is to be left at the end


class Unknown(Exception):
    """Something in a graph that is not known here: the name of the primitive or operator."""


class Owner(Protocol):
    """The module that is being built, as its graphs see it."""

    name: str

    def child(self, path: tuple[str, ...], name: str) -> bool:
        """Whether `name` is a module inside the module at `path`; Unknown where it is out of reach."""

    def tensor(self, path: tuple[str, ...], name: str) -> bool:
        """Whether `name` is a parameter or buffer of the module at `path`."""

    def attribute(self, path: tuple[str, ...], name: str) -> Any:
        """The plain attribute `name` of the module at `path`."""

    def callable(self, path: tuple[str, ...], method: str) -> None:
        """Raises Unknown where a method of the module at `path` cannot be run."""

    def keep(self, tensor: Tensor) -> str:
        """Makes a constant tensor a buffer; its name."""

    def function(self, name: str) -> Any:
        """The graph of a scripted function."""


@dataclass(frozen=True)
class Graph:
    """The steps of one method or function.

    Attributes:
        block: its steps; its inputs are without the module itself.
        constants: values that are the same in every call.
        buffers: name -> buffer of the module that holds a constant tensor.
        devices: names that stand for the device of the call.
    """

    block: Block
    constants: Mapping[str, Any]
    buffers: Mapping[str, str]
    devices: Sequence[str]

    def run(self, arguments: Sequence[Any], frame: Frame) -> Any:
        """The graph's result."""
        values = dict(self.constants)
        for name, buffer in self.buffers.items():
            values[name] = frame.module._buffers[buffer]
        for name in self.devices:
            values[name] = frame.device
        values.update(zip(self.block.inputs, arguments, strict=True))
        with ExitStack() as values[OPEN]:
            return self.block.run(values, frame)[0]


def read_graph(graph: Any, owner: Owner, method: bool) -> Graph:
    """The steps of a graph.

    Args:
        graph: a torch._C.Graph.
        owner: the module that it belongs to, or that calls it.
        method: whether it is a method's, whose first input is the module.

    Raises:
        Unknown: it holds a primitive or operator that is not known here.
    """
    reader = _Reader(owner)
    inputs = debug_names(graph.inputs())
    if method:
        reader.modules[inputs[0]] = ()
        inputs = inputs[1:]
    block = reader.block(graph, inputs)
    return Graph(block, reader.constants, reader.buffers, tuple(reader.devices))


class _Reader:
    """Reads one graph; every name in it is unique, those in nested blocks too."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.constants: dict[str, Any] = {}
        self.scalars: dict[str, Any] = {}  # the numbers in constant tensors without dimensions
        self.buffers: dict[str, str] = {}
        self.devices: list[str] = []
        self.functions: dict[str, str] = {}
        self.modules: dict[str, tuple[str, ...]] = {}  # path below the owner
        self.scopes: set[str] = set()

    def block(self, block: Any, inputs: Sequence[str]) -> Block:
        steps = []
        for node in block.nodes():
            step = self.step(node)
            if step is not None:
                if any(name in self.modules for name in step.needs):
                    raise Unknown(f"{node.kind()} of a module")
                steps.append(step)
        return Block(inputs, steps, debug_names(block.outputs()))

    def step(self, node: Any) -> Step | None:
        outputs = list(node.outputs())
        if len(outputs) == 1 and outputs[0].type().kind() == "DeviceObjType":
            self.devices.append(outputs[0].debugName())
            return None
        kind = node.kind()
        special = getattr(self, "read_" + kind.removeprefix("prim::"), None) if kind[:4] == "prim" else None
        if special is not None:
            return special(node)
        if kind in ALWAYS:
            return function_step(node, ALWAYS[kind])
        return self.operation(node)

    def operation(self, node: Any) -> Step:
        """An operator on tensors, or Python's where no value is a tensor or torch has none."""
        needs, gives = names_of(node)
        schema = node.schema()
        found = find_operator(schema.partition("(")[0])
        numbers = NUMBERS.get(node.kind())
        if found is None:
            if numbers is None:
                raise Unknown(node.kind())
            return function_step(node, numbers)
        names = [argument.name for argument in torch._C.parse_schema(schema).arguments]
        operator = Operator(found, names, self.owner.name)
        scalars = [self.scalars.get(name) for name in needs]

        def run(values: Values, frame: Frame) -> None:
            given = [values[name] for name in needs]
            plain = given if numbers is None else without_tensors(given, scalars)
            result = operator(given) if numbers is None or plain is None else numbers(*plain)
            bind(values, gives, result)

        return Step(run, needs, gives)

    def read_Constant(self, node: Any) -> None:
        name, kind = node.output().debugName(), node.output().type().kind()
        if kind == "FunctionType":
            self.functions[name] = node.output().type().annotation_str
            return
        value = node.output().toIValue()
        if isinstance(value, Tensor):
            self.buffers[name] = self.owner.keep(value)
            if value.ndim == 0:
                self.scalars[name] = value.item()
        else:
            self.plain(node, value, kind == "NoneType")

    def read_GetAttr(self, node: Any) -> Step | None:
        name, out = node.s("name"), node.output().debugName()
        path = self.path(node)
        if self.owner.child(path, name):
            self.modules[out] = (*path, name)
            return None
        if name != "training" and not self.owner.tensor(path, name):
            self.plain(node, self.owner.attribute(path, name), none=True)
            return None

        def run(values: Values, frame: Frame) -> None:
            module = below(frame.module, path)
            if name == "training":
                values[out] = module.training
            else:
                values[out] = (module._parameters if name in module._parameters else module._buffers)[name]

        return Step(run, (), (out,))

    def read_CallMethod(self, node: Any) -> Step:
        method = node.s("name")
        (target, *needs), gives = names_of(node)
        if target in self.scopes and method == "__init__":
            return function_step(node, Scope.make)
        path = self.path(node)
        self.owner.callable(path, method)

        def run(values: Values, frame: Frame) -> None:
            given = [values[name] for name in needs]
            if path:
                result = below(frame.module, path).call_method(method, given)
            else:
                result = frame.module.run_method(method, given, frame)
            bind(values, gives, result)

        return Step(run, tuple(needs), gives)

    def read_CallFunction(self, node: Any) -> Step:
        (target, *needs), gives = names_of(node)
        if target not in self.functions:
            raise Unknown("prim::CallFunction of a computed function")
        graph = read_graph(self.owner.function(self.functions[target]), self.owner, method=False)

        def run(values: Values, frame: Frame) -> None:
            bind(values, gives, graph.run([values[name] for name in needs], frame))

        return Step(run, tuple(needs), gives)

    def read_If(self, node: Any) -> Step:
        (condition,), gives = names_of(node)
        yes, no = (self.block(block, ()) for block in node.blocks())

        def run(values: Values, frame: Frame) -> None:
            taken = yes if values[condition] else no
            values.update(zip(gives, taken.run(values, frame), strict=True))

        return Step(run, (condition, *yes.needs, *no.needs), gives)

    def read_Loop(self, node: Any) -> Step:
        needs, gives = names_of(node)
        (inner,) = node.blocks()
        body = self.block(inner, debug_names(inner.inputs()))

        def run(values: Values, frame: Frame) -> None:
            limit, going, *carried = (values[name] for name in needs)
            turn = 0
            while going and turn < limit:
                values.update(zip(body.inputs, (turn, *carried), strict=True))
                going, *carried = body.run(values, frame)
                turn += 1
            values.update(zip(gives, carried, strict=True))

        return Step(run, (*needs, *body.needs), gives)

    def read_ListUnpack(self, node: Any) -> Step:
        return self.read_TupleUnpack(node)

    def read_TupleUnpack(self, node: Any) -> Step:
        (whole,), gives = names_of(node)

        def run(values: Values, frame: Frame) -> None:
            values.update(zip(gives, values[whole], strict=True))

        return Step(run, (whole,), gives)

    def read_Uninitialized(self, node: Any) -> None:
        self.constants[node.output().debugName()] = None

    def read_RaiseException(self, node: Any) -> Step:
        message, where = names_of(node)[0][0], self.owner.name

        def run(values: Values, frame: Frame) -> None:
            raise RequestError(f"module {where!r} refuses its input: {values[message]}")

        return Step(run, (message,))

    def read_CreateObject(self, node: Any) -> Step:
        kind, name = node.output().type().annotation_str, node.output().debugName()
        if kind not in SCOPES:
            raise Unknown(f"prim::CreateObject of {kind}")
        self.scopes.add(name)

        def run(values: Values, frame: Frame) -> None:
            values[name] = Scope(SCOPES[kind], frame.device)
            values[OPEN].callback(values[name].leave)

        return Step(run, (), (name,))

    def read_Enter(self, node: Any) -> Step:
        return function_step(node, Scope.enter)

    def read_Exit(self, node: Any) -> Step:
        return function_step(node, Scope.leave)

    def plain(self, node: Any, value: Any, none: bool) -> None:
        """Makes a value of Python's own types a constant; None only where it may be meant."""
        if not is_plain(value) or (value is None and not none):
            raise Unknown(f"{node.kind()} of type {node.output().type().annotation_str}")
        self.constants[node.output().debugName()] = value

    def path(self, node: Any) -> tuple[str, ...]:
        """Where the module lies whose attribute or method a node wants."""
        target = node.inputsAt(0)
        if target.debugName() not in self.modules:
            raise Unknown(f"{node.kind()} on {target.type().annotation_str}")
        return self.modules[target.debugName()]

"""TorchScript archives as trees of modules: same names, and hooks fire.

A TorchScript module refuses Python hooks, and its executor merges layers so that gradients at their outputs
are wrong from the second call on. So nothing is executed by it: each module becomes an nn.Module whose
forward pass runs the steps of the archive's graph in Python. The archive is read by the C++ reader behind
torch.jit.load, whose own Python face is deprecated and warns.

Reading runs no Python code: TorchScript's unpickler makes tensors, numbers and TorchScript objects only.
What TorchScript code could do to files is refused.
"""

import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leamfast.errors import RequestError, first_line
from leamfast.models.operators import FILE_OPERATORS, NAMESPACES, refuse_training
from leamfast.models.script_graphs import Graph, Unknown, read_graph
from leamfast.models.steps import Frame, device_of

__all__ = ["OpaqueModule", "ScriptedModule", "load_torchscript", "read_script"]

_C: Any = torch._C  # its types and torch.jit's are incomplete
_jit: Any = torch.jit
FORWARD = re.compile(r"forward(__)?\d*")  # a second traced call is forward1, an overload is forward__0


class ScriptedModule(nn.Module):
    """One module of an archive, interpreted.

    Attributes:
        original_name: the class that it was made from, such as `Conv2d`.
        opaque: of the outermost module: dotted name -> primitive of each module that cannot be interpreted
            and is run whole, so that nothing inside can be tapped.
    """

    def __init__(self, original_name: str) -> None:
        super().__init__()
        self.original_name = original_name
        self.opaque: dict[str, str] = {}
        self._graphs: dict[str, Graph] = {}
        self._defaults: tuple[Any, ...] = ()

    def forward(self, *arguments: Any, method: str = "forward") -> Any:
        graph = self._graphs[method]
        missing = len(graph.block.inputs) - len(arguments)
        if 0 < missing <= len(self._defaults):
            arguments = (*arguments, *self._defaults[-missing:])
        return graph.run(arguments, Frame(self, device_of(arguments, self), self))

    def call_method(self, method: str, arguments: Sequence[Any]) -> Any:
        """A method called from outside: with hooks where it is a forward pass."""
        if method == "forward":
            return self(*arguments)
        if FORWARD.fullmatch(method):
            return self(*arguments, method=method)
        return self.run_method(method, arguments, Frame(self, device_of(arguments, self), self))

    def run_method(self, method: str, arguments: Sequence[Any], frame: Frame) -> Any:
        """A method called by the module itself."""
        return self._graphs[method].run(arguments, frame)


class OpaqueModule(nn.Module):
    """A module that is run whole by TorchScript: its output can be tapped, nothing inside.

    The executor's optimisation is off, with which gradients are right in every call. Parameters and buffers
    are those of the TorchScript module, under their full names.
    """

    def __init__(self, source: Any, original_name: str) -> None:
        super().__init__()
        self.original_name = original_name
        self._source = source
        for name, owner in _tree(source):
            for key, parameter in _C.ParameterDict(owner).items():
                self._parameters[name + key] = nn.Parameter(parameter.detach(), requires_grad=False)
            for key, buffer in _C.BufferDict(owner).items():
                self._buffers[name + key] = buffer

    def forward(self, *arguments: Any, method: str = "forward") -> Any:
        with _jit.optimized_execution(False):
            return self._source._get_method(method)(*arguments)

    def call_method(self, method: str, arguments: Sequence[Any]) -> Any:
        """A method called from outside: with hooks where it is a forward pass."""
        if FORWARD.fullmatch(method):
            return self(*arguments, method=method)
        return self.forward(*arguments, method=method)

    def train(self, mode: bool = True) -> "OpaqueModule":
        super().train(mode)
        for _, owner in _tree(self._source):
            if owner.hasattr("training"):
                owner.setattr("training", mode)
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "OpaqueModule":
        super()._apply(fn, recurse)
        for name, owner in _tree(self._source):
            for key, _ in (*_C.ParameterDict(owner).items(), *_C.BufferDict(owner).items()):
                stored = self._parameters if name + key in self._parameters else self._buffers
                owner.setattr(key, stored[name + key])
        return self


def load_torchscript(path: Path) -> ScriptedModule:
    """The network in a TorchScript archive, in evaluation mode on the CPU.

    Raises:
        RequestError: it cannot be read, its layers' names are gone, or it would do more than compute.
    """
    unit, source = read_script(path)
    if source._get_forward_hooks() or source._get_forward_pre_hooks():
        raise RequestError("its outermost module has hooks of its own: save the model without them")
    opaque: dict[str, str] = {}
    network = _Builder(unit, source, "", {}, opaque).module
    if not isinstance(network, ScriptedModule):
        raise RequestError(
            f"its outermost module uses {opaque['']}, which is not known here, so that no layer can be tapped"
        )
    if len(list(network.modules())) == 1:
        raise RequestError(
            "it has no modules inside, so that its layers' names are gone: "
            "save the model before torch.jit.freeze or other inlining"
        )
    network.opaque = opaque
    return network.eval().requires_grad_(False)


def read_script(path: Path) -> tuple[Any, Any]:
    """What is in an archive, once it is known to do no more than compute; none of it is run.

    Args:
        path: a zip file whose list of members has been checked.

    Returns:
        Its compilation unit and its outermost module, of TorchScript's own types.

    Raises:
        RequestError: it cannot be read, runs code while it is loaded, reads or writes files, or has operators
            of others than torch and torchvision.
    """
    _refuse_code_at_loading(path)
    unit = _C.CompilationUnit()
    try:
        source = _C.import_ir_module(unit, str(path), torch.device("cpu"), {}, False)
    except Exception as exc:  # damaged files and unknown operators make the reader raise nearly anything
        raise RequestError(f"it cannot be read as TorchScript: {first_line(exc)}") from exc
    for function in unit.get_functions():
        _refuse_files(function.graph)
    return unit, source


class _Builder:
    """Builds one module; an `Owner` of its graphs."""

    def __init__(
        self, unit: Any, source: Any, name: str, known: dict[Any, "_Builder"], opaque: dict[str, str]
    ) -> None:
        self.unit = unit
        self.source = source
        self.name = name
        self.built = ScriptedModule(source.qualified_name.rpartition(".")[2])
        self.failed: dict[str, str] = {}
        self.children: dict[str, _Builder] = {}
        known[source] = self
        inner: dict[str, str] = {}
        for key, child in _C.ModuleDict(source).items():
            dotted = f"{name}.{key}" if name else key
            if child not in known:
                _Builder(unit, child, dotted, known, inner)
            self.children[key] = known[child]
            self.built._modules[key] = known[child].module
        for key, parameter in _C.ParameterDict(source).items():
            self.built._parameters[key] = nn.Parameter(parameter.detach(), requires_grad=False)
        self.built._buffers.update(_C.BufferDict(source).items())
        self.module: nn.Module = self._finished(opaque, inner)

    def _finished(self, opaque: dict[str, str], inner: dict[str, str]) -> nn.Module:
        """The module, or what runs it whole where its forward pass holds something unknown."""
        for method in self.source._method_names():
            self._read(method)
        unknown = next((self.failed[method] for method in self.failed if FORWARD.fullmatch(method)), None)
        if unknown is not None:
            opaque[self.name] = unknown
            for method in self.source._method_names():
                _refuse_training(self.source._get_method(method).inlined_graph, self.name)
            return OpaqueModule(self.source, self.built.original_name)
        opaque.update(inner)
        if "forward" in self.built._graphs:
            schema = self.source._get_method("forward").schema
            self.built._defaults = tuple(a.default_value for a in schema.arguments if a.has_default_value())
        return self.built

    def _read(self, method: str) -> None:
        """Reads a method once; what stands in the way is remembered."""
        if method in self.built._graphs or method in self.failed:
            return
        try:
            graph = self.source._get_method(method).graph
            self.built._graphs[method] = read_graph(graph, self, method=True)
        except Unknown as exc:
            self.failed[method] = str(exc)

    def _at(self, path: tuple[str, ...]) -> "_Builder":
        builder = self
        for name in path:
            builder = builder.children[name]
            if isinstance(builder.module, OpaqueModule):
                raise Unknown(f"prim::GetAttr inside {builder.name}")
        return builder

    def child(self, path: tuple[str, ...], name: str) -> bool:
        return name in self._at(path).children

    def tensor(self, path: tuple[str, ...], name: str) -> bool:
        owner = self._at(path)
        if name in owner.built._parameters or name in owner.built._buffers:
            return True
        value = owner.source.getattr(name)
        if isinstance(value, Tensor):  # a plain attribute, which moves with the module like a buffer
            owner.built.register_buffer(name, value.detach(), persistent=False)
            return True
        return False

    def attribute(self, path: tuple[str, ...], name: str) -> Any:
        return self._at(path).source.getattr(name)

    def callable(self, path: tuple[str, ...], method: str) -> None:
        owner = self
        if path:
            owner = self._at(path[:-1]).children[path[-1]]
            if isinstance(owner.module, OpaqueModule):
                return
        owner._read(method)
        if method in owner.failed:
            raise Unknown(owner.failed[method])

    def keep(self, tensor: Tensor) -> str:
        name = f"_constant_{len(self.built._buffers)}"
        self.built.register_buffer(name, tensor.detach(), persistent=False)
        return name

    def function(self, name: str) -> Any:
        return self.unit.find_function(name).graph


def _tree(source: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """A TorchScript module and all modules inside it, each with the prefix of its tensors' names."""
    inner = _C.ModuleDict(source).items()
    return [(prefix, source), *(pair for name, child in inner for pair in _tree(child, f"{prefix}{name}."))]


def _refuse_code_at_loading(path: Path) -> None:
    """Refuses objects that restore themselves by TorchScript code, which would run before it is checked."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if "/code/" in name and b"__setstate__" in archive.read(name):
                raise RequestError(
                    f"it runs code while it is loaded (__setstate__ in {name}), which is not allowed: "
                    "save the model without packed or quantised modules"
                )


def _refuse_files(block: Any) -> None:
    for node in _nodes(block):
        kind = node.kind()
        if kind in FILE_OPERATORS:
            raise RequestError(f"it reads or writes files ({kind}), which is not allowed")
        if kind.partition("::")[0] not in (*NAMESPACES, "prim"):
            raise RequestError(
                f"it uses the operator {kind}, which is not one of torch or torchvision.ops: what it does is "
                "not known, and it is not allowed"
            )


def _refuse_training(block: Any, name: str) -> None:
    """Refuses in a module that is run whole what `Operator` refuses in others, where it is constant."""
    for node in _nodes(block):
        if "::" in node.schema():
            names = [argument.name for argument in _C.parse_schema(node.schema()).arguments]
            given = zip(names, node.inputs(), strict=False)  # some take any number
            constant = {
                key: value.toIValue() for key, value in given if value.node().kind() == "prim::Constant"
            }
            refuse_training(node.kind(), constant, name)


def _nodes(block: Any) -> Iterator[Any]:
    """All nodes of a graph, those of nested blocks and of graphs that nodes hold too."""
    for node in block.nodes():
        yield node
        held = [node.g(name) for name in node.attributeNames() if node.kindOf(name) == "g"]
        held += [
            graph for name in node.attributeNames() if node.kindOf(name) == "gs" for graph in node.gs(name)
        ]
        for inner in (*node.blocks(), *held):
            yield from _nodes(inner)

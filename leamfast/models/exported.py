"""torch.export archives (`.pt2`) as trees of modules: same names, and hooks fire.

The flat list of operations in the archive says of each in which call of which module it was recorded. The
operations of one call become the forward pass of that module again: what it reads from outside are its
arguments, and what others read of it is its output. Nothing of the archive is executed but torch operators;
see `export_reader` for how it is read.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from leamfast.errors import RequestError
from leamfast.models.export_arguments import Device, Ref, Stored, names_in
from leamfast.models.export_graph import Call, Flat, Operation, flatten
from leamfast.models.export_reader import read_archive
from leamfast.models.steps import Block, Frame, Step, Values, below, device_of

__all__ = ["ExportedModule", "load_exported"]

SYMBOL = re.compile(r"(?:Symbol\('(\w+)'.*\)|(\w+))")  # with or without assumptions


class ExportedModule(nn.Module):
    """One module of an archive.

    Attributes:
        original_name: the class that it was exported from, such as `Conv2d`; `Module` where no operation of
            its own is recorded.
    """

    def __init__(self, root: "ExportedModule | None" = None) -> None:
        super().__init__()
        self.original_name = "Module"
        self._root = (root or self,)  # in a tuple, so that it is no submodule
        self._blocks: list[Block] = []  # one for each call in a forward pass of the network

    def forward(self, *values: Any, call: int = 0) -> Any:
        block, root = self._blocks[call], self._root[0]
        frame = Frame(self, device_of(values, root), root)
        outputs = block.run(dict(zip(block.inputs, values, strict=True)), frame)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


class ExportedNetwork(ExportedModule):
    """The outermost module.

    Args:
        batches: smallest and largest number of images that the program was exported for; None is no limit.
        single: whether it returns its only output as it is, and not in a tuple.
    """

    def __init__(self, batches: tuple[int | None, int | None], single: bool) -> None:
        super().__init__()
        self._batches = batches
        self._single = single

    def forward(self, *values: Any, call: int = 0) -> Any:
        low, high = self._batches
        count = values[0].shape[0]
        if (low is not None and count < low) or (high is not None and count > high):
            raise RequestError(
                f"the program was exported for {low or 1} to {high or 'any number of'} images at a time, "
                f"got {count}: export it with a wider range of the batch dimension"
            )
        outputs = super().forward(*values)
        return outputs if self._single or isinstance(outputs, tuple) else (outputs,)


def load_exported(path: Path) -> ExportedNetwork:
    """The network in an archive that torch.export.save wrote, on the CPU.

    Raises:
        RequestError: it holds code, something that is not known here, or one size of batch only.
    """
    archive = read_archive(path)
    flat = flatten(archive.program)
    network = ExportedNetwork(_batches(archive.program, flat.images), flat.single)
    for spec in archive.program["graph_module"]["signature"]["input_specs"]:
        ((kind, content),) = spec.items()
        if f"{kind}_name" in content:
            _store(network, content[f"{kind}_name"], archive.tensors, kind)
    _Builder(network, flat).build()
    return network.eval().requires_grad_(False)


def _store(network: ExportedModule, full_name: str, tensors: Mapping[str, Tensor], kind: str) -> None:
    where = Stored.of(full_name)
    owner, tensor = _made(network, where.path), tensors[full_name]
    if kind == "parameter":
        owner._parameters[where.name] = nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[where.name] = tensor
        if kind != "buffer":
            owner._non_persistent_buffers_set.add(where.name)


def _batches(program: Mapping[str, Any], images: str) -> tuple[int | None, int | None]:
    """Smallest and largest number of images of a batch; an exporter's 2 stands for 1 as well."""
    size = program["graph_module"]["graph"]["tensor_values"][images]["sizes"][0]
    if "as_int" in size:
        raise RequestError(
            f"the program takes exactly {size['as_int']} images: export it with a dynamic batch dimension, "
            'dynamic_shapes=({0: torch.export.Dim("batch")},)'
        )
    symbol = SYMBOL.fullmatch(size["as_expr"]["expr_str"])
    limits = program["range_constraints"].get(symbol[1] or symbol[2], {}) if symbol else {}
    low, high = limits.get("min_val"), limits.get("max_val")
    return None if low is None or low <= 2 else low, high


def _made(network: ExportedModule, path: Sequence[str]) -> ExportedModule:
    """The module at a path, made where there is none."""
    module: Any = network
    for name in path:
        if name not in module._modules:
            module._modules[name] = ExportedModule(network)
        module = module._modules[name]
    return module


@dataclass
class _Builder:
    """Gives the operations of a list back to the modules in whose calls they were recorded."""

    network: ExportedModule
    flat: Flat

    def __post_init__(self) -> None:
        # Sizes belong to no module: they are computed wherever they are read.
        sizes = [operation for operation in self.flat.operations if operation.symbolic]
        self.sizes = {name: operation for operation in sizes for name in operation.outputs}
        self.operations = [operation for operation in self.flat.operations if not operation.symbolic]
        self.readers: dict[str, set[int]] = {}
        for i, operation in enumerate(self.operations):
            self._read(operation.arguments, i)
        self._read(self.flat.outputs, len(self.operations))

    def _read(self, arguments: Any, reader: int) -> None:
        for name in names_in(arguments):
            for tensor in self._tensors(name):
                self.readers.setdefault(tensor, set()).add(reader)

    def _tensors(self, name: str) -> set[str]:
        """The values from which a value is computed, which is itself unless it is a size."""
        if name not in self.sizes:
            return {name}
        return {tensor for source in names_in(self.sizes[name].arguments) for tensor in self._tensors(source)}

    def build(self) -> None:
        outputs = list(names_in(self.flat.outputs))
        if len(outputs) != len(self.flat.outputs):
            raise RequestError("the program returns something that it does not compute")
        self.network._blocks = [self._block(0, len(self.operations), 0, outputs)]

    def _block(self, start: int, end: int, depth: int, outputs: Sequence[str] | None = None) -> Block:
        """The operations of one call, those of calls inside it as one step each."""
        given = [name for operation in self.operations[start:end] for name in operation.outputs]
        inputs = [self.flat.images] if depth == 0 else []
        known = {*given, *inputs}
        steps: list[Step] = []

        def need(names: Sequence[str]) -> None:
            for name in names:
                if name in known:
                    continue
                size = self.sizes.get(name)
                if size is not None and self._tensors(name) <= known:
                    need(list(names_in(size.arguments)))
                    steps.append(_step(size))
                else:
                    inputs.append(name)
                known.add(name)

        if outputs is None:
            outputs = [
                name for name in given if any(not start <= i < end for i in self.readers.get(name, ()))
            ]
            outputs = outputs or given[-1:]
        i = start
        while i < end:
            operation = self.operations[i]
            if len(operation.calls) == depth:
                need(list(names_in(operation.arguments)))
                steps.append(_step(operation))
                i += 1
                continue
            call, first = operation.calls[depth], i
            while i < end and self.operations[i].calls[depth : depth + 1] == (call,):
                i += 1
            block = self._block(first, i, depth + 1)
            need(block.inputs)
            steps.append(self._call(call, block))
        need(outputs)
        return Block(inputs, steps, outputs)

    def _call(self, call: Call, block: Block) -> Step:
        path = tuple(call.path.split("."))
        module = _made(self.network, path)
        module.original_name = call.kind
        module._blocks.append(block)
        options = {"call": len(module._blocks) - 1} if len(module._blocks) > 1 else {}

        def run(values: Values, frame: Frame) -> None:
            result = below(frame.root, path)(*[values[name] for name in block.inputs], **options)
            _bind(values, block.outputs, result, several=len(block.outputs) > 1)

        return Step(run, block.inputs, block.outputs)


def _step(operation: Operation) -> Step:
    arguments = tuple(operation.arguments)
    changing = [i for i, argument in enumerate(arguments) if _changes(argument)]

    def run(values: Values, frame: Frame) -> None:
        given = list(arguments)
        for i in changing:
            given[i] = _fill(arguments[i], values, frame)
        if operation.scopes:
            with ExitStack() as stack:
                for scope in operation.scopes:
                    stack.enter_context(scope(frame.device))
                result = operation.run(given)
        else:
            result = operation.run(given)
        _bind(values, operation.outputs, result, operation.several)

    return Step(run, tuple(names_in(arguments)), operation.outputs)


def _changes(argument: Any) -> bool:
    return isinstance(argument, Ref | Stored | Device) or (
        isinstance(argument, list) and any(map(_changes, argument))
    )


def _fill(argument: Any, values: Values, frame: Frame) -> Any:
    """The value that an argument stands for."""
    if isinstance(argument, Ref):
        return values[argument.name]
    if isinstance(argument, Stored):
        owner = below(frame.root, argument.path)
        return (owner._parameters if argument.name in owner._parameters else owner._buffers)[argument.name]
    if isinstance(argument, Device):
        return frame.device
    return [_fill(part, values, frame) for part in argument] if isinstance(argument, list) else argument


def _bind(values: Values, names: Sequence[str], result: Any, several: bool) -> None:
    if several:
        values.update(zip(names, result, strict=True))
    elif names:
        values[names[0]] = result

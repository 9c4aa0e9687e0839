"""From a recording to a file that runs: a TorchScript archive, or native code by AOTInductor."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from leamfast.errors import RequestError
from leamfast.leam.recording import Recording, constant
from leamfast.models.compiled import ABOUT, ProgramInfo
from leamfast.models.jit import save_script

__all__ = ["COMPILERS", "has_compiler", "write_program"]

aten = torch.ops.aten
Node = Any  # torch types what a node may hold too widely to be used

IMAGES = 5  # of the batch that a program is compiled with; it runs with any from 2 on
MOST = 1 << 16  # images of a batch
BINARY = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)


def write_program(recording: Recording, info: ProgramInfo, path: Path) -> None:
    """Compile the passes of a program into a file, whole or not at all.

    Args:
        recording: the passes; changed on the way.
        info: what the program is; `backend` says how it is compiled.
        path: the file, which appears when it is complete.

    Raises:
        RequestError: the compiler cannot.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        made = Path(folder) / f"program{'.pt2' if info.backend == 'inductor' else '.pt'}"
        try:
            COMPILERS[info.backend](recording, info, made)
        except Exception as exc:  # compilers raise nearly anything
            text = (str(exc) or type(exc).__name__).splitlines()[0]
            raise RequestError(
                f"{info.model} cannot be compiled by {info.backend} ({type(exc).__name__}: {text}): "
                "use backend eager"
            ) from exc
        os.replace(made, path)


def has_compiler() -> bool:
    """Whether there is the C++ compiler that native code for a CPU needs."""
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++"))


def _torchscript(recording: Recording, info: ProgramInfo, path: Path) -> None:
    for graph in (recording.forward, recording.backward):
        for node in graph.graph.nodes:
            if node.target == aten.sym_size.int:
                node.target = aten.size
            elif isinstance(node.target, torch._ops.OpOverload):
                node.target = node.target.overloadpacket
        graph.recompile()
    passes = {"forward_pass": recording.forward, "backward_pass": recording.backward}
    save_script(passes, path, {ABOUT: info.to_json()})


def _inductor(recording: Recording, info: ProgramInfo, path: Path) -> None:
    from torch.export.pt2_archive._package import package_pt2

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # of machines without a GPU
    _plain_aggregate(recording.backward)
    for graph in (recording.forward, recording.backward):
        _own_scalars(graph)
    images, cotangents = _first(recording.forward), _last(recording.backward)
    with torch.no_grad(), _working_in(path.parent):
        examples = [_zeros(images).contiguous(memory_format=torch.channels_last)]
        saved = recording.forward(*examples)[1:]  # in the layout that the backward pass will find them in
        files = {
            "forward_pass": _aot(recording.forward, examples),
            "backward_pass": _aot(recording.backward, [*saved, _zeros(cotangents)]),
        }
    package_pt2(str(path), aoti_files=files, extra_files={ABOUT: info.to_json()})


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Inductor leaves its sources and objects in a folder, and not in one that stays."""
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")  # it sets the second below the first
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ |= {name: str(folder / "inductor" / name.lower()) for name in names}
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
        os.environ |= before


def _aot(graph: fx.GraphModule, examples: Sequence[Tensor]) -> Any:
    batch = torch.export.Dim("batch", min=2, max=MOST)
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    shapes = tuple(_batched(node, batch) for node in inputs)
    exported = torch.export.export(graph, tuple(examples), dynamic_shapes=shapes)
    options = {"aot_inductor.package": True, "freezing": True, "cpp.dynamic_threads": True}
    return torch._inductor.aot_compile(exported.module(), tuple(examples), options=options)


def _batched(node: Node, batch: Any) -> dict[int, Any] | None:
    """Which sizes of an input follow the batch: a multiple of it comes first, as windows of images do."""
    sizes = node.meta["val"].shape
    if not sizes or not isinstance(sizes[0], torch.SymInt):
        return None
    (symbol,) = sizes[0].node.expr.free_symbols
    times = int(sizes[0].node.expr.subs(symbol, 1))
    return {0: batch if times == 1 else times * batch}


def _first(graph: fx.GraphModule) -> Node:
    return next(node for node in graph.graph.nodes if node.op == "placeholder")


def _last(graph: fx.GraphModule) -> Node:
    return [node for node in graph.graph.nodes if node.op == "placeholder"][-1]


def _zeros(node: Node) -> Tensor:
    """A batch of zeros for an input whose sizes but the first are known."""
    value = node.meta["val"]
    sides = (int(side) for side in value.shape[1:])
    return torch.zeros([IMAGES, *sides], dtype=value.dtype, device=value.device)


def _plain_aggregate(graph: fx.GraphModule) -> None:
    """The aggregation written out, so that it is compiled together with what surrounds it."""
    for node in list(graph.graph.nodes):
        if node.target != torch.ops.leamfast.aggregate.default:
            continue
        acts, grads = node.args
        with graph.graph.inserting_before(node):
            call = graph.graph.call_function
            if acts.meta["val"].dtype in (torch.bfloat16, torch.float16):
                acts, grads = (
                    call(aten._to_copy.default, (x,), {"dtype": torch.float32}) for x in (acts, grads)
                )
            products = call(aten.mul.Tensor, (call(aten.clamp_min.default, (grads, 0)), acts))
            maps = call(aten.clamp_min.default, (call(aten.sum.dim_IntList, (products, [1])), 0))
        node.replace_all_uses_with(maps)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _own_scalars(graph: fx.GraphModule) -> None:
    """A constant of its own for each number that is added to or multiplied with the output of a layer.

    Inductor folds such numbers into the layer's weights, and keeps all of them in one buffer: of different
    ones, as the scales of the blocks of InceptionResnetV1 are, the last replaces the others (torch 2.15,
    binary_folding.py, `other_tensor`).
    """
    for node in graph.graph.nodes:
        if node.target not in BINARY or not isinstance(node.args[1], int | float):
            continue
        value = node.args[0].meta["val"]
        if isinstance(value, Tensor) and value.is_floating_point():
            number = torch.tensor(node.args[1], dtype=value.dtype, device=value.device)
            node.args = (node.args[0], constant(graph, node, number), *node.args[2:])
    graph.recompile()


COMPILERS: dict[str, Callable[[Recording, ProgramInfo, Path], None]] = {
    "torchscript": _torchscript,
    "inductor": _inductor,
}
"""Backend -> what writes its file."""

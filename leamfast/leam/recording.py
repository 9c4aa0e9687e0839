"""A program's two passes as graphs of plain operations, without autograd.

Autograd runs once, while the passes are recorded with a symbolic number of images. What is left is one graph
(images, cotangents) -> (embeddings, maps), in which gradients are ordinary operations: nothing that a
compiler merges or freezes can lose one. What depends on the cotangents is the backward pass; it takes from
the forward pass, which runs once however many references an image has, the activations that it needs.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from leamfast.errors import RequestError
from leamfast.leam.eager import EagerPasses

__all__ = ["Recording", "record", "split"]

aten = torch.ops.aten
Node = Any  # torch types what a node may hold too widely to be used


@dataclass(frozen=True)
class Recording:
    """The two passes.

    Attributes:
        forward: images (B, 3, H, W) -> (embeddings (B, D), *saved).
        backward: (*saved, cotangents (B, D)) -> maps, one (B, h, w) a tap.
    """

    forward: fx.GraphModule
    backward: fx.GraphModule


def record(passes: EagerPasses, dimensions: int) -> fx.GraphModule:
    """The graph (images, cotangents) -> (embeddings, *maps), for any number of images.

    Args:
        passes: the passes by autograd.
        dimensions: D of an embedding.

    Raises:
        RequestError: the network branches on values, or works for one number of images only.
    """
    model = passes.model
    size = model.preprocessing.size
    parameter = next(model.network.parameters(), torch.empty(0))
    # Equal sizes become one symbol: the batch must have one of its own.
    batch = next(number for number in range(5, 8) if number not in (size, dimensions))
    images = parameter.new_zeros(batch, 3, size, size)
    cotangents = images.new_zeros(batch, dimensions)

    def joint(images: Tensor, cotangents: Tensor) -> tuple[Tensor, ...]:
        embeddings, tape = passes.forward(images)
        return embeddings, *passes.backward(tape, cotangents, last=True)

    try:
        graph = _trace(joint, images, cotangents)
        if any(map(_mutates, graph.graph.nodes)):
            graph = _trace(functionalize(graph, remove="mutations"), images, cotangents)
    except RequestError:
        raise
    except Exception as exc:  # whatever the user's code does when it sees sizes and values that are symbols
        raise RequestError(
            f"the forward pass of {model.name} cannot be recorded, as where it branches on values "
            f"({type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''}): use backend eager"
        ) from exc
    _pin_sizes(graph, model.name)
    _drop_copies(graph)
    _fold_constants(graph)
    return graph


def _trace(function: Callable[..., object], *examples: Tensor) -> fx.GraphModule:
    return make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*examples)


def _mutates(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _changes(node: Node) -> bool:
    """Whether an operation gives something else each time, or does more than to give it."""
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return random or bool(node.is_impure())


def _drop_copies(joint: fx.GraphModule) -> None:
    """Nothing is written in place any more: copies and other names of a value are the value."""
    for node in list(joint.graph.nodes):
        if node.target in (aten.alias.default, aten.clone.default, aten.detach.default):
            node.replace_all_uses_with(node.args[0])
            joint.graph.erase_node(node)


def split(joint: fx.GraphModule) -> Recording:
    """The forward and the backward pass of a graph of both."""
    nodes = list(joint.graph.nodes)
    images, cotangents = (node for node in nodes if node.op == "placeholder")
    embeddings, *maps = nodes[-1].args[0]
    behind = {cotangents}
    for node in nodes[:-1]:
        if any(source in behind for source in node.all_input_nodes):
            behind.add(node)
    grounded = {images}  # what does not depend on the images is made again rather than saved
    for node in nodes[:-1]:
        if any(source in grounded for source in node.all_input_nodes):
            grounded.add(node)
    saved = list(
        dict.fromkeys(
            source
            for node in nodes[:-1]
            if node in behind
            for source in node.all_input_nodes
            if source not in behind and source in grounded and _is_tensor(source)
        )
    )
    return Recording(
        _part(joint, [images], [embeddings, *saved]), _part(joint, [*saved, cotangents], list(maps))
    )


def _part(joint: fx.GraphModule, inputs: Sequence[Node], outputs: Sequence[Node]) -> fx.GraphModule:
    """The operations that lead from some nodes to others; sizes are read off the last input."""
    graph = fx.Graph()
    copies = {}
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    needed = _ancestors(outputs, set(inputs))
    for node in joint.graph.nodes:
        if node not in needed:
            continue
        if node.target == aten.sym_size.int:
            copies[node] = graph.call_function(aten.sym_size.int, (copies[inputs[-1]], 0))
            copies[node].meta = dict(node.meta)
        else:
            copies[node] = graph.node_copy(node, lambda source: copies[source])
    graph.output(tuple(copies[node] for node in outputs))
    return fx.GraphModule(joint, graph)


def _ancestors(outputs: Sequence[Node], inputs: set[Node]) -> set[Node]:
    found: set[Node] = set()
    stack = [node for node in outputs if node not in inputs]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            # A size is read off an input again: what it was read off here is not needed.
            sources = () if node.target == aten.sym_size.int else node.all_input_nodes
            stack += [source for source in sources if source not in inputs]
    return found


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _pin_sizes(joint: fx.GraphModule, name: str) -> None:
    """Numbers for all sizes but those that are multiples of the batch's, which are read off the images."""
    images = next(iter(joint.graph.nodes))
    batch = images.meta["val"].shape[0]
    if not isinstance(batch, torch.SymInt) or not batch.node.expr.free_symbols:
        raise RequestError(
            f"the forward pass of {name} works for one number of images only: use backend eager"
        )
    symbol = batch.node.expr
    inputs = (node for node in joint.graph.nodes if node.op == "placeholder")
    sides = (side for node in inputs for side in node.meta["val"].shape if isinstance(side, torch.SymInt))
    others: dict[Any, Any] = {side.node.expr: side.node.hint for side in sides if side.node.expr != symbol}
    for node in list(joint.graph.nodes):
        value = node.meta.get("val")
        if not isinstance(value, torch.SymInt):
            continue
        if symbol not in value.node.expr.free_symbols:
            hint: Any = value.node.hint
            node.replace_all_uses_with(int(hint))
        elif node.target == aten.sym_size.int:
            times = value.node.expr.subs(others) / symbol
            if not times.is_Integer:
                raise RequestError(f"the forward pass of {name} mixes images of a batch: use backend eager")
            with joint.graph.inserting_before(node):
                size = joint.graph.call_function(aten.sym_size.int, (images, 0))
                product = joint.graph.call_function(operator.mul, (size, int(times)))
            size.meta["val"], product.meta["val"] = batch, value
            node.replace_all_uses_with(size if times == 1 else product)
    joint.graph.eliminate_dead_code()


def _fold_constants(joint: fx.GraphModule) -> None:
    """Compute what depends on parameters alone."""
    graph = joint.graph
    values: dict[Node, Tensor] = {}
    with torch.no_grad():
        for node in list(graph.nodes):
            if node.op == "get_attr":
                values[node] = getattr(joint, str(node.target)).detach()
            elif node.op == "call_function" and node.all_input_nodes and not _changes(node):
                if not all(source in values for source in node.all_input_nodes):
                    continue
                args, kwargs = map_arg((node.args, node.kwargs), lambda source: values[source])
                value = node.target(*args, **kwargs)
                if isinstance(value, Tensor):
                    folded = constant(joint, node, value)
                    values[folded] = value
                    node.replace_all_uses_with(folded)
    graph.eliminate_dead_code()


def constant(joint: fx.GraphModule, before: Node, value: Tensor) -> Node:
    """A new constant of a graph, to be used from `before` on."""
    name = next(name for number in count() if not hasattr(joint, name := f"constant_{number}"))
    joint.register_buffer(name, value)
    with joint.graph.inserting_before(before):
        node = joint.graph.get_attr(name)
    node.meta["val"] = value
    return node

"""In what precision a program computes: fp32, tf32 (on CUDA) or bf16, with float32 sums in the maps."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from leamfast.errors import RequestError
from leamfast.models.face_model import FaceModel

__all__ = ["PRECISIONS", "cast_graph", "cast_model", "check_precision", "matrix_products"]

PRECISIONS = ("fp32", "tf32", "bf16")

aten = torch.ops.aten


def check_precision(precision: str, device: torch.device) -> None:
    """Raise a RequestError unless the device computes in this precision."""
    if precision not in PRECISIONS:
        raise RequestError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "tf32" and device.type != "cuda":
        raise RequestError(f"precision tf32 needs a CUDA device, got {device}: use fp32")


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Whether CUDA rounds the factors of float32 products to tf32 while the block runs."""
    if not torch.cuda.is_available():
        yield
        return
    flags: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [flag.allow_tf32 for flag in flags]
    try:
        for flag in flags:
            flag.allow_tf32 = precision == "tf32"
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


def cast_model(model: FaceModel) -> FaceModel:
    """The model with a copy of its network in bfloat16."""
    return replace(model, network=copy.deepcopy(model.network).to(torch.bfloat16))


def cast_graph(joint: fx.GraphModule) -> None:
    """Rewrite a recorded program to compute in bfloat16; weights that were folded before are rounded once."""
    graph = joint.graph
    for name, buffer in list(joint.named_buffers()):
        if buffer.dtype == torch.float32:
            joint.register_buffer(name, buffer.to(torch.bfloat16))
    for name, parameter in list(joint.named_parameters()):
        if parameter.dtype == torch.float32:
            setattr(joint, name, torch.nn.Parameter(parameter.detach().to(torch.bfloat16), False))
    for node in list(graph.nodes):
        if node.op == "placeholder":
            with graph.inserting_after(node):
                rounded = graph.call_function(aten._to_copy.default, (node,), {"dtype": torch.bfloat16})
            rounded.meta["val"] = node.meta["val"].to(torch.bfloat16)
            node.replace_all_uses_with(rounded, delete_user_cb=lambda user, own=rounded: user is not own)
    outputs: Any = graph.output_node().args[0]
    embeddings, *maps = outputs
    with graph.inserting_before(graph.output_node()):
        wide = graph.call_function(aten._to_copy.default, (embeddings,), {"dtype": torch.float32})
    wide.meta["val"] = embeddings.meta["val"]
    graph.output_node().args = ((wide, *maps),)
    for node in graph.nodes:
        if node.op == "call_function" and node.kwargs.get("dtype") == torch.float32 and node is not wide:
            node.kwargs = node.kwargs | {"dtype": torch.bfloat16}
    joint.recompile()
    inputs = [node.meta["val"] for node in graph.nodes if node.op == "placeholder"]
    # Some operations give float32 for bfloat16, as attention's normaliser: what each really gives counts.
    FakeTensorProp(joint, inputs[0].fake_mode).propagate_dont_convert_inputs(*inputs)

"""Rewriting a recorded program so that it does less: exact in real arithmetic, never across a tap.

- BatchNorm, which is a scale and a shift a channel, goes into the convolution before it; its gradient, a
  scale, into the transposed convolutions beside it.
- The gradient of a convolution becomes a convolution with turned weights, which compilers prepare and fuse.
- Convolutions read and write channels last.

A value that is an output of the program, as activations and gradients at taps lead to, has another user and
is left alone, whatever stands around it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from leamfast.leam.recording import constant

__all__ = ["fold"]

aten = torch.ops.aten
Node = Any  # torch types what a node may hold too widely to be used

BATCH_NORM = aten._native_batch_norm_legit_no_training.default
BATCH_NORM_BACKWARD = aten.native_batch_norm_backward.default


def fold(joint: fx.GraphModule) -> None:
    """Rewrite the graph of a program in place."""
    with torch.no_grad():
        for rewrite in (
            _batch_norm_backward,
            _batch_norm_into_convolution,
            _scale_into_gradient,
            _gradient_as_convolution,
            _views_of_any_layout,
            _channels_last,
        ):
            rewrite(joint)
            joint.graph.eliminate_dead_code()
    joint.recompile()


def _nodes(joint: fx.GraphModule, target: Callable[..., object]) -> Iterator[Node]:
    return (node for node in list(joint.graph.nodes) if node.target == target)


def _value(joint: fx.GraphModule, node: object) -> Tensor | None:
    """The tensor of a constant, or None for anything else."""
    if isinstance(node, fx.Node) and node.op == "get_attr":
        return getattr(joint, str(node.target)).detach()
    return None


def _item(node: Node, index: int) -> Node | None:
    """The use of one item of a node's result, where that is its only use at all."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].args[1:] == (index,) else None


def _channels(values: Tensor, dims: int) -> Tensor:
    return values.view(1, -1, *[1] * (dims - 2))


def _scale(weight: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    """What BatchNorm multiplies each channel with, in float64."""
    scale = (variance.double() + eps).rsqrt()
    return scale if weight is None else scale * weight.double()


def _batch_norm_backward(joint: fx.GraphModule) -> None:
    """Gradient of BatchNorm with fixed statistics: g * scale."""
    for node in _nodes(joint, BATCH_NORM_BACKWARD):
        gradient, _, weight, _, variance, _, _, training, eps = node.args[:9]
        result, known = _item(node, 0), _value(joint, variance)
        if training or result is None or known is None:
            continue
        scale = _scale(_value(joint, weight), known, eps).to(known.dtype)
        factor = constant(joint, node, _channels(scale, result.meta["val"].ndim))
        with joint.graph.inserting_before(node):
            product = joint.graph.call_function(aten.mul.Tensor, (gradient, factor))
        product.meta = dict(result.meta)
        result.replace_all_uses_with(product)


def _batch_norm_into_convolution(joint: fx.GraphModule) -> None:
    """BatchNorm(W x + b) = (scale W) x + (scale b + shift), where nothing else reads the convolution."""
    for node in _nodes(joint, BATCH_NORM):
        convolution, weight, bias, mean, variance, _, eps = node.args
        result = _item(node, 0)
        if result is None or convolution.target != aten.convolution.default or len(convolution.users) > 1:
            continue
        kernel, known_mean, known = (
            _value(joint, source) for source in (convolution.args[1], mean, variance)
        )
        if kernel is None or known is None or known_mean is None or convolution.args[6]:
            continue
        scale = _scale(_value(joint, weight), known, eps)
        shift, own = _value(joint, bias), _value(joint, convolution.args[2])
        moved = -known_mean.double() * scale
        moved = moved if shift is None else moved + shift.double()
        moved = moved if own is None else moved + own.double() * scale
        scaled = kernel.double() * scale.view(-1, *[1] * (kernel.ndim - 1))
        with_bias = [constant(joint, convolution, value.to(kernel.dtype)) for value in (scaled, moved)]
        convolution.args = (convolution.args[0], *with_bias, *convolution.args[3:])
        result.replace_all_uses_with(convolution)


def _scale_into_gradient(joint: fx.GraphModule) -> None:
    """Scales before and after the gradient of a convolution go into its weights."""
    for node in _nodes(joint, aten.convolution_backward.default):
        kernel, groups = _value(joint, node.args[2]), node.args[9]
        if kernel is None or node.args[7]:
            continue
        scaled = kernel.double()
        product = node.args[0]
        before = _factor(joint, product)
        if before is not None and len(product.users) == 1:
            scaled = scaled * before.double().view(-1, 1, 1, 1)
            node.args = (product.args[0], *node.args[1:])
        result = _item(node, 0)
        after = next(iter(result.users)) if result is not None and len(result.users) == 1 else None
        factor = None if after is None else _factor(joint, after)
        if (
            factor is not None
            and after is not None
            and after.args[0] is result
            and groups in (1, len(kernel))
        ):
            shape = (1, -1, 1, 1) if groups == 1 else (-1, 1, 1, 1)
            if groups == 1 or factor.numel() == len(kernel):
                scaled = scaled * factor.double().view(shape)
                after.replace_all_uses_with(result)
        node.args = (*node.args[:2], constant(joint, node, scaled.to(kernel.dtype)), *node.args[3:])


def _factor(joint: fx.GraphModule, node: Node) -> Tensor | None:
    """The factor a channel of a product, where the node is one."""
    if node.target != aten.mul.Tensor:
        return None
    factor = _value(joint, node.args[1])
    return factor if factor is not None and factor.ndim == 4 and factor.numel() == factor.shape[1] else None


def _gradient_as_convolution(joint: fx.GraphModule) -> None:
    """Gradients of convolutions with respect to their input, as convolutions of what arrives."""
    for node in _nodes(joint, aten.convolution_backward.default):
        gradient, _, weight, _, stride, padding, dilation, transposed, _, groups = node.args[:10]
        kernel, result = _value(joint, weight), _item(node, 0)
        if kernel is None or result is None or transposed or kernel.ndim != 4:
            continue
        sides = kernel.shape[2:]
        reach = [d * (k - 1) for d, k in zip(dilation, sides, strict=True)]
        border = [r - p for r, p in zip(reach, padding, strict=True)]
        depthwise = groups == len(kernel) and kernel.shape[1] == 1
        if list(stride) == [1, 1] and min(border) >= 0 and (groups == 1 or depthwise):
            turned = (kernel if depthwise else kernel.transpose(0, 1)).flip(2, 3).contiguous()
            source = constant(joint, node, turned)
            args = (gradient, source, None, [1, 1], border, dilation, False, [0, 0], groups)
        else:
            ends = zip(
                result.meta["val"].shape[2:],
                gradient.meta["val"].shape[2:],
                stride,
                padding,
                reach,
                strict=True,
            )
            left = [int(big) - ((int(small) - 1) * s - 2 * p + r + 1) for big, small, s, p, r in ends]
            args = (gradient, weight, None, stride, padding, dilation, True, left, groups)
        with joint.graph.inserting_before(node):
            convolution = joint.graph.call_function(aten.convolution.default, args)
        convolution.meta = dict(result.meta)
        result.replace_all_uses_with(convolution)


def _views_of_any_layout(joint: fx.GraphModule) -> None:
    """A view needs the layout of the recorded run; a reshape does not."""
    for target in (aten.view.default, aten._unsafe_view.default):
        for node in _nodes(joint, target):
            node.target = aten.reshape.default


def _channels_last(joint: fx.GraphModule) -> None:
    for node in joint.graph.nodes:
        value = _value(joint, node)
        if value is not None and value.ndim == 4 and value.shape[2:].numel() > 1:
            value = value.contiguous(memory_format=torch.channels_last)
            node.replace_all_uses_with(constant(joint, node, value))

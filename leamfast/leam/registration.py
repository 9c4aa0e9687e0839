"""Where the cells of a tap lie on the input: worked out from the graph of one forward pass.

A resize by the ratio of the sizes puts cell i of h at (i + 1/2) H / h - 1/2. That is not where the cell
looks: a 3x3 convolution with stride 2 and padding 1 centres cell i on pixel 2i, so that the cells of a 7x7
map lie up to 7.5 pixels off after a plain resize. Every operation between the image and the tap maps the
position of a cell to the centre of what it reads, x -> a x + b; composed they give the offset and step of
the tap's grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leamfast.errors import RequestError
from leamfast.models.face_model import FaceModel
from leamfast.models.layers import Layer, at_layers

__all__ = ["REGISTRATIONS", "Centres", "cell_centres", "plain_centres"]

REGISTRATIONS = ("resize", "receptive")

Centres = tuple[tuple[float, float], tuple[float, float]]
"""((offset, step) of the rows, (offset, step) of the columns) of a grid's cells, in input pixels."""


@dataclass(frozen=True)
class _Place:
    """A position x along each axis reads the input around offset + step * x."""

    offsets: tuple[float, float] = (0.0, 0.0)
    steps: tuple[float, float] = (1.0, 1.0)

    def after(self, scales: Sequence[float], shifts: Sequence[float]) -> "_Place":
        """The place of an operation whose output x reads this one's output around scale * x + shift."""
        pairs = [
            (offset + step * shift, step * scale)
            for offset, step, scale, shift in zip(self.offsets, self.steps, scales, shifts, strict=True)
        ]
        return _Place((pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1]))


def plain_centres(layer: Layer, size: int) -> Centres:
    """Where a plain resize to `size` pixels puts the cells of a layer."""
    rows, columns = size / layer.height, size / layer.width
    return ((rows - 1) / 2, rows), ((columns - 1) / 2, columns)


def cell_centres(model: FaceModel, taps: Sequence[Layer]) -> dict[str, Centres]:
    """Offset and step of the cells of each tap, at the centres of their receptive fields.

    Args:
        model: the model.
        taps: its layers to be placed.

    Returns:
        Tap -> ((offset, step), (offset, step)) for rows and columns, in input pixels, pixel centres at whole
        numbers. Where paths of different registration meet, their mean.

    Raises:
        RequestError: an operation between the image and a tap is not known here.
    """
    size = model.preprocessing.size
    parameter = next(model.network.parameters(), torch.empty(0))
    image = parameter.new_zeros(1, 3, size, size).requires_grad_()
    ends: dict[str, Any] = {}

    def keep(tap: Layer, output: Tensor) -> None:
        ends[tap.name] = output.grad_fn

    with torch.enable_grad(), at_layers(model.network, taps, keep):
        model.network(image)
    places: dict[Any, _Place | None] = {None: None}
    found = {}
    for name, node in ends.items():
        place = _place(node, image, places, f"layer {name!r} of {model.name}")
        if place is None:
            raise RequestError(f"layer {name!r} of {model.name} does not read the image at a place")
        (y, x), (dy, dx) = place.offsets, place.steps
        found[name] = ((y, dy), (x, dx))
    return found


def _place(end: Any, image: Tensor, places: dict[Any, _Place | None], what: str) -> _Place | None:
    """Place of a node of the autograd graph, parents first; None where it does not depend on the image."""
    stack = [end]
    while stack:
        node = stack[-1]
        if node in places:
            stack.pop()
            continue
        waiting = [parent for parent, _ in node.next_functions if parent not in places]
        if waiting:
            stack += waiting
            continue
        places[node] = _of_node(node, image, places, what)
        stack.pop()
    return places[end]


def _of_node(node: Any, image: Tensor, places: dict[Any, _Place | None], what: str) -> _Place | None:
    kind = node.name().rstrip("0123456789").removesuffix("Backward")
    if kind == "torch::autograd::AccumulateGrad":
        return _Place() if node.variable is image else None
    parents = [place for parent, _ in node.next_functions if (place := places[parent]) is not None]
    if not parents or kind in WITHOUT_A_PLACE:
        return None
    if kind in POINTWISE:
        return _mean(parents)
    if kind not in WINDOWS:
        raise RequestError(
            f"{what} cannot be registered: where {node.name()} moves cells is not known here; use resize"
        )
    scales, shifts = WINDOWS[kind](node)
    return parents[0].after(scales, shifts)


def _mean(places: Sequence[_Place]) -> _Place:
    values = [(*place.offsets, *place.steps) for place in places]
    y, x, dy, dx = (sum(column) / len(values) for column in zip(*values, strict=True))
    return _Place((y, x), (dy, dx))


def _window(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[list[float], list[float]]:
    shifts = [d * (k - 1) / 2 - p for k, p, d in zip(kernel, padding, dilation, strict=True)]
    return [float(s) for s in stride], shifts


def _convolution(node: Any) -> tuple[list[float], list[float]]:
    scales, shifts = _window(
        node._saved_weight.shape[2:], node._saved_stride, node._saved_padding, node._saved_dilation
    )
    if node._saved_transposed:  # reads the other way round
        return [1 / s for s in scales], [-b / s for b, s in zip(shifts, scales, strict=True)]
    return scales, shifts


def _pooling(node: Any) -> tuple[list[float], list[float]]:
    dilation = getattr(node, "_saved_dilation", (1, 1))
    kernel = node._saved_kernel_size
    return _window(kernel, node._saved_stride or kernel, node._saved_padding, dilation)


def _padding(node: Any) -> tuple[list[float], list[float]]:
    left, _, top, _ = (*node._saved_pad, 0, 0, 0, 0)[:4]
    return [1.0, 1.0], [-float(top), -float(left)]


def _unshuffle(node: Any) -> tuple[list[float], list[float]]:
    factor = float(node._saved_downscale_factor)
    return [factor, factor], [(factor - 1) / 2] * 2


WINDOWS = {
    "Convolution": _convolution,
    "MaxPool2DWithIndices": _pooling,
    "AvgPool2D": _pooling,
    "ConstantPadNd": _padding,
    "PixelUnshuffle": _unshuffle,
}
"""Operations that move cells: how their output reads their input."""

POINTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Cat", "Neg", "Clone", "ToCopy", "Clamp", "ClampMin", "Threshold"}
    | {"Relu", "PreluKernel", "LeakyRelu", "Hardtanh", "Elu", "Celu", "Silu", "Gelu", "Mish", "Softplus"}
    | {"Sigmoid", "Tanh", "Hardswish", "Hardsigmoid"}
    | {"NativeBatchNorm", "CudnnBatchNorm", "NativeGroupNorm", "NativeDropout"}
)
"""Operations whose every output cell reads the cell of the same position."""

WITHOUT_A_PLACE = frozenset({"Mean", "Sum", "AdaptiveAvgPool2D", "AdaptiveMaxPool2D"})
"""Operations that read the whole grid, as the gates of squeeze-and-excitation blocks do."""

"""What a network's modules put out: found by watching one forward pass."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from math import isqrt

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Layer", "at_layers", "hooks", "list_layers"]

CHANNELS_FIRST, CHANNELS_LAST, TOKENS = "channels_first", "channels_last", "tokens"

MAX_PREFIX = 8  # class and register tokens before a grid, where the network does not say how many


@dataclass(frozen=True)
class Layer:
    """The output of one call of a named module.

    Attributes:
        name: the module's dotted name; `NAME@1`, `NAME@2`, ... where one forward pass runs it several times.
        kind: its class.
        channels, height, width: shape of its output without the batch; zeros where it has no spatial extent.
        calls: how often one forward pass runs it.
        overwritten: whether a later in-place operation changes its output.
        call: which of these calls it is, from 1.
        layout: `channels_first` (N, C, h, w), `channels_last` (N, h, w, C) or `tokens` (N, prefix + h w, C).
        prefix: tokens before the grid: class and register tokens.
    """

    name: str
    kind: str
    channels: int
    height: int
    width: int
    calls: int
    overwritten: bool
    call: int = 1
    layout: str = CHANNELS_FIRST
    prefix: int = 0

    @property
    def spatial(self) -> bool:
        """Whether the output is a grid of more than one cell."""
        return self.height * self.width > 1

    @property
    def module(self) -> str:
        """The module's dotted name."""
        return self.name if self.calls == 1 else self.name.rpartition("@")[0]

    def grid(self, x: Tensor) -> Tensor:
        """An output of this layer, or its gradient, as a grid of cells: a view of shape (N, C, h, w)."""
        if self.layout == CHANNELS_LAST:
            return x.permute(0, 3, 1, 2)
        if self.layout == TOKENS:
            return x[:, self.prefix :].transpose(1, 2).unflatten(2, (self.height, self.width))
        return x


@dataclass(frozen=True)
class _Call:
    """One call of a module: what it gave, and how often that had been written when it gave it."""

    name: str
    kind: str
    output: object
    version: int
    call: int

    def layer(self, calls: int) -> Layer:
        """The layer, its output's shape not yet looked at."""
        name = self.name if calls == 1 else f"{self.name}@{self.call}"
        overwritten = isinstance(self.output, Tensor) and self.output._version != self.version
        return Layer(name, self.kind, 0, 0, 0, calls, overwritten, self.call)


@contextmanager
def hooks() -> Iterator[list[RemovableHandle]]:
    """A list for hook handles, all of which are removed at the end whatever happens."""
    handles: list[RemovableHandle] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def at_layers(
    net: nn.Module, layers: Iterable[Layer], function: Callable[[Layer, Tensor], Tensor | None]
) -> Iterator[None]:
    """Call `function` with the outputs of layers in the one forward pass that the block runs.

    What it returns takes the output's place, unless it is None. The hooks are gone afterwards.
    """
    by_module: dict[str, dict[int, Layer]] = {}
    for layer in layers:
        by_module.setdefault(layer.module, {})[layer.call] = layer
    with hooks() as handles:
        for name, calls in by_module.items():

            def look(
                module: nn.Module,
                _: object,
                output: Tensor,
                calls: dict[int, Layer] = calls,
                numbers: Iterator[int] = count(1),  # noqa: B008  one for each module
            ) -> Tensor | None:
                layer = calls.get(next(numbers))
                return None if layer is None else function(layer, output)

            handles.append(net.get_submodule(name).register_forward_hook(look))
        yield


def list_layers(net: nn.Module, example: Tensor) -> tuple[Layer, ...]:
    """Every module call of a forward pass, in the order in which they finish.

    Args:
        net: the network, in evaluation mode.
        example: an input batch of one image, shape (1, 3, S, S).
    """
    seen: list[_Call] = []
    calls: Counter[str] = Counter()
    with hooks() as handles, torch.no_grad():
        for name, module in net.named_modules():
            if not name:
                continue

            def watch(module: nn.Module, _: object, output: object, name: str = name) -> None:
                calls[name] += 1
                version = output._version if isinstance(output, Tensor) else 0
                kind = getattr(module, "original_name", type(module).__name__)  # of a module from an archive
                seen.append(_Call(name, kind, output, version, calls[name]))

            handles.append(module.register_forward_hook(watch))
        net(example)

    stated, counts = _stated_grid(net), set[int]()
    layers = []
    for call in seen:
        layer = call.layer(calls[call.name])
        if isinstance(call.output, Tensor) and call.output.shape[:1] == (1,):
            shape = tuple(call.output.shape[1:])
            layer = _placed(layer, shape, stated, counts)
            if layer.layout == TOKENS:
                counts.add(shape[0])
        layers.append(layer)
    return tuple(layers)


def _placed(
    layer: Layer, shape: tuple[int, ...], stated: tuple[int, int, int] | None, counts: set[int]
) -> Layer:
    """The layer with the layout of its output's shape, which is given without the batch.

    Args:
        layer: what is known so far.
        shape: of the output of one square image.
        stated: prefix, height and width of the grid of tokens, where the network says them.
        counts: numbers of tokens met so far; what has as many rows holds attention heads, no cells.
    """
    if len(shape) == 2:
        prefix, height, width = _tokens(shape[0], stated)
        if height:
            return replace(layer, channels=shape[1], height=height, width=width, layout=TOKENS, prefix=prefix)
    if len(shape) == 3 and shape[1] not in counts:
        square, last = shape[1] == shape[2], shape[0] == shape[1]
        if last and (not square or layer.kind in ("Linear", "LayerNorm")):
            return replace(layer, channels=shape[2], height=shape[0], width=shape[1], layout=CHANNELS_LAST)
        return replace(layer, channels=shape[0], height=shape[1], width=shape[2])
    return layer


def _tokens(count: int, stated: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Prefix, height and width of the grid that `count` tokens form; zeros where they form none."""
    if stated is not None:
        prefix, height, width = stated
        if count - height * width in (0, prefix):
            return count - height * width, height, width
    for prefix in range(MAX_PREFIX + 1):
        side = isqrt(max(0, count - prefix))
        if count >= 4 and side * side == count - prefix:
            return prefix, side, side
    return 0, 0, 0


def _stated_grid(net: nn.Module) -> tuple[int, int, int] | None:
    """Prefix, height and width of the grid of tokens, where the network says them as timm's do."""
    size = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    if not isinstance(size, tuple) or len(size) != 2:
        return None
    return int(getattr(net, "num_prefix_tokens", 0)), int(size[0]), int(size[1])

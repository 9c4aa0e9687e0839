"""What a network's modules put out: found by watching one forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Layer", "hooks", "list_layers"]


@dataclass(frozen=True)
class Layer:
    """The output of one named module.

    Attributes:
        name: the module's dotted name.
        kind: its class.
        channels, height, width: shape of its output without the batch; zeros where it has no spatial extent.
        calls: how often one forward pass runs it.
        overwritten: whether a later in-place operation changes its output.
    """

    name: str
    kind: str
    channels: int
    height: int
    width: int
    calls: int
    overwritten: bool

    @property
    def spatial(self) -> bool:
        """Whether the output is a grid of more than one cell."""
        return self.height * self.width > 1


@contextmanager
def hooks() -> Iterator[list[RemovableHandle]]:
    """A list for hook handles, all of which are removed at the end whatever happens."""
    handles: list[RemovableHandle] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def list_layers(net: nn.Module, example: Tensor) -> tuple[Layer, ...]:
    """Every module that a forward pass runs, in the order in which they finish.

    Args:
        net: the network, in evaluation mode.
        example: an input batch of one image, shape (1, 3, H, W).
    """
    seen: dict[str, tuple[nn.Module, object, int]] = {}
    calls: dict[str, int] = {}

    with hooks() as handles, torch.no_grad():
        for name, module in net.named_modules():
            if not name:
                continue

            def watch(module: nn.Module, _: object, output: object, name: str = name) -> None:
                calls[name] = calls.get(name, 0) + 1
                seen[name] = (module, output, output._version if isinstance(output, Tensor) else 0)

            handles.append(module.register_forward_hook(watch))
        net(example)

    layers = []
    for name, (module, output, version) in seen.items():
        shape, overwritten = (0, 0, 0), False
        if isinstance(output, Tensor):
            overwritten = output._version != version
            if output.ndim == 4:
                shape = (output.shape[1], output.shape[2], output.shape[3])
        layers.append(Layer(name, type(module).__name__, *shape, calls[name], overwritten))
    return tuple(layers)

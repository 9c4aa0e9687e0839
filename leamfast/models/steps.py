"""A forward pass as a list of steps over named values: how networks without source are run.

A step reads and writes a dictionary of values by name. A `Block` is a list of steps that forgets each value
after its last use, as Python code does that assigns to the same variable again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Block", "Frame", "Step", "Values", "below", "device_of"]

Values = dict[str, Any]


@dataclass(frozen=True)
class Frame:
    """What the steps of one call share.

    Attributes:
        module: whose forward pass it is.
        device: where its input lies; it stands for every device that an archive names, so that an archive
            runs wherever its tensors are.
        root: the outermost network, where steps look up tensors and modules by their full names.
    """

    module: Any
    device: torch.device
    root: Any


@dataclass(frozen=True)
class Step:
    """One operation: the names it reads, the names it writes, and what it does with them."""

    run: Callable[[Values, Frame], None]
    needs: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()


class Block:
    """Steps in order, from named inputs to named outputs.

    Attributes:
        inputs: names that are given.
        outputs: names that are returned.
        needs: names that its steps read and that come from outside.
    """

    def __init__(self, inputs: Sequence[str], steps: Iterable[Step], outputs: Sequence[str]) -> None:
        steps = tuple(steps)
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        own = {*inputs, *(name for step in steps for name in step.gives)}
        needs = {*outputs, *(name for step in steps for name in step.needs)}
        self.needs = tuple(sorted(needs - own))
        self._ends = tuple(own & set(outputs))
        later = set(outputs)
        run = []
        for step in reversed(steps):
            names = own.intersection({*step.needs, *step.gives})
            run.append((step.run, tuple(names - later)))
            later |= names
        self._steps = tuple(reversed(run))

    def run(self, values: Values, frame: Frame) -> list[Any]:
        """The outputs, where `values` holds the inputs and whatever else is needed."""
        for step, last in self._steps:
            step(values, frame)
            for name in last:
                del values[name]
        outputs = [values[name] for name in self.outputs]
        for name in self._ends:
            del values[name]
        return outputs


def device_of(values: Iterable[Any], module: nn.Module) -> torch.device:
    """Where the first tensor among the values lies, or else the module's first parameter or buffer."""
    for value in chain(values, module.parameters(), module.buffers()):
        if isinstance(value, Tensor):
            return value.device
    return torch.device("cpu")


def below(module: Any, path: Sequence[str]) -> Any:
    """The module at a path below another."""
    for name in path:
        module = module._modules[name]
    return module

"""How much work a model is."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from leamfast.models.face_model import FaceModel

__all__ = ["count_flops"]


def count_flops(model: FaceModel) -> float:
    """Floating-point operations of a forward and a backward pass for one image."""
    size = model.preprocessing.size
    with _Flops() as counter:
        model.embed(torch.zeros(1, 3, size, size, device=model.device))
    return 2.0 * counter.total


class _Flops(TorchDispatchMode):
    """Counts as torch's FlopCounterMode does, without the two seconds of imports that entering it costs."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # brings triton

        super().__init__()
        self.registry, self.total = flop_registry, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operator would import torch._dynamo

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        count = self.registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=output)
        return output

"""`with torch.no_grad()` and `with autocast(...)` as archives record them."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch

from leamfast.models.operators import DTYPES

__all__ = ["SCOPES", "Scope", "autocast"]

SCOPES = {
    "__torch__.torch.autograd.grad_mode.no_grad": "no_grad",
    "__torch__.torch.autograd.grad_mode.enable_grad": "enable_grad",
    "__torch__.torch.cuda.amp.autocast_mode.autocast": "cuda autocast",
    "__torch__.torch.amp.autocast_mode.autocast": "autocast",
}
"""Class of a TorchScript object -> what it is."""


def autocast(
    target: str, dtype: torch.dtype | None, enabled: bool, device: torch.device
) -> AbstractContextManager[Any]:
    """Autocast for the device type `target`, which does nothing where the work is on another."""
    return torch.autocast(target, dtype=dtype, enabled=enabled) if target == device.type else nullcontext()


class Scope:
    """The object that a with statement of TorchScript enters and leaves."""

    def __init__(self, kind: str, device: torch.device) -> None:
        self._kind = kind
        self._device = device
        self._manager: AbstractContextManager[Any] = nullcontext()
        self._open = ExitStack()

    def make(self, *arguments: Any) -> None:
        """Its constructor."""
        if self._kind in ("no_grad", "enable_grad"):
            self._manager = getattr(torch, self._kind)()
            return
        if self._kind == "autocast":
            target, dtype, enabled = arguments[:3]
        else:
            target, (enabled, dtype) = "cuda", arguments[:2]
        self._manager = autocast(target, None if dtype is None else DTYPES[dtype], enabled, self._device)

    def enter(self) -> None:
        """Start of the with statement."""
        self._open.enter_context(self._manager)

    def leave(self) -> None:
        """End of the with statement; nothing where it is over."""
        self._open.close()

"""The gate: what a row computes must be right before it is timed.

A row shows what it has: its maps, or activations and gradients where its package scales or rectifies the
maps in a way of its own. Each is compared with float64 by hand.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from leamfast_bench.maps.exact import Exact

__all__ = ["LIMITS", "Seen", "relative_error", "tap_errors"]

LIMITS: Mapping[str, float] = {"fp32": 1e-2, "tf32": 5e-2, "bf16": 3e-1}
"""Precision -> the largest relative L2 error of a tap. A wrong sign or a wrong layer gives 1 and more."""


class Seen:
    """Collects what a call shows, for later."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Tensor] = {}

    def __call__(self, tap: str, **found: object) -> None:
        for quantity, values in found.items():
            self.found[tap, quantity] = torch.as_tensor(values).detach()


def tap_errors(seen: Seen, wanted: Exact, taps: tuple[str, ...]) -> dict[str, float]:
    """Tap -> relative L2 error of the worst of what was seen of it; infinite where nothing was."""
    errors = dict.fromkeys(taps, -math.inf)
    for (tap, quantity), values in seen.found.items():
        errors[tap] = max(errors[tap], relative_error(values, wanted.wanted(tap, quantity)))
    return {tap: error if error >= 0 else math.inf for tap, error in errors.items()}


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """||found - wanted|| / ||wanted||, infinite where shapes differ or a value is not finite."""
    found = found.cpu().double()
    if found.shape != wanted.shape or not bool(found.isfinite().all()):
        return math.inf
    off, size = float((found - wanted).norm()), float(wanted.norm())
    return off / size if size > 0 else math.inf if off > 0 else 0.0

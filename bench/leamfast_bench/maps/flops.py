"""Arithmetic: how much of it maps need, and how much of it a GPU could do."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from leamfast_bench.maps.case import Case
from leamfast_bench.maps.expert import by_hand
from leamfast_bench.maps.row import unseen

__all__ = ["PEAKS", "gflop", "share_of_peak"]

PEAKS: Mapping[str, Mapping[str, float]] = {"H100": {"fp32": 67e3, "tf32": 494e3, "bf16": 989e3}}
"""Part of a GPU's name -> precision -> dense GFLOP/s, by its data sheet (SXM)."""


class _Counter(TorchDispatchMode):
    """Adds up torch's formulas; its own counter watches modules too, which a leaf amid them confuses."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def gflop(case: Case) -> float:
    """GFLOP an image: forward, and the gradient from the embedding back to the first tap."""
    call = by_hand(replace(case, images=case.images[:1], references=case.references[:1]))
    with _Counter() as counter:
        call(unseen)
    return counter.total / 1e9


def share_of_peak(gflops: float, device: str, precision: str) -> float | None:
    """What part of a device's peak a rate is; None for a device whose peak is not known.

    Args:
        gflops: GFLOP/s.
        device: its name.
        precision: fp32, tf32 or bf16.

    >>> share_of_peak(494.5e3, "NVIDIA H100 80GB HBM3", "bf16")
    0.5
    """
    for name, peaks in PEAKS.items():
        if name in device:
            return gflops / peaks[precision]
    return None

"""No backend is trusted: its maps are compared with those of autograd before it is used."""

from collections.abc import Sequence

import torch
from torch import Tensor

from leamfast.errors import RequestError
from leamfast.leam.eager import EagerPasses
from leamfast.leam.precision import matrix_products
from leamfast.leam.program import Passes

__all__ = ["CALLS", "TOLERANCES", "check_passes", "relative_error"]

CALLS = (1, 2, 5)  # executors that optimise after some calls are wrong from then on
IMAGES = (3, 1, 4, 2, 5)  # of the batch at each call
TOLERANCES = {"fp32": 1e-2, "tf32": 5e-2, "bf16": 0.2}
"""Precision -> relative L2 error of a tap's maps that is taken for rounding.

Float32 maps differ by up to 3e-3 in the shallowest layers, where rounding moves single activations across the
kink of a PReLU; gradients that a compiler has broken differ by 0.4 and more."""


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """|found - wanted| / |wanted| in float64; infinite where found is not finite."""
    difference, size = (found.double() - wanted.double()).norm(), wanted.double().norm()
    error = float(difference / size) if size > 0 else float(difference)
    return error if error == error else float("inf")


def check_passes(
    passes: Passes, eager: EagerPasses, taps: Sequence[str], precision: str, name: str
) -> dict[str, float]:
    """Compare passes with those of autograd on a small batch, at their first, second and fifth call.

    Args:
        passes: the passes in question, not called before.
        eager: float32 autograd of the same model.
        taps: names of the taps, for the message.
        precision: `fp32`, `tf32` or `bf16`, which sets the tolerance.
        name: what the passes are, for the message.

    Returns:
        Tap -> largest relative error.

    Raises:
        RequestError: embeddings or maps disagree.
    """
    size, device = eager.model.preprocessing.size, eager.model.device
    generator = torch.Generator().manual_seed(0)
    worst = dict.fromkeys(taps, 0.0)
    for call in range(1, max(CALLS) + 1):
        images = torch.randn(IMAGES[call - 1], 3, size, size, generator=generator).to(device)
        try:
            with matrix_products(precision):
                embeddings, tape = passes.forward(images)
                cotangents = torch.randn(embeddings.shape, generator=generator).to(device)
                maps = passes.backward(tape, cotangents, last=True)
        except Exception as exc:  # compiled code raises nearly anything
            text = (str(exc) or type(exc).__name__).splitlines()[0]
            raise RequestError(
                f"{name} cannot run {eager.model.name} ({type(exc).__name__}: {text}): use backend eager"
            ) from exc
        if call not in CALLS:
            continue
        wanted, tape = eager.forward(images)
        found = {"embeddings": relative_error(embeddings, wanted)}
        pairs = zip(taps, maps, eager.backward(tape, cotangents, last=True), strict=True)
        found |= {tap: relative_error(ours, theirs) for tap, ours, theirs in pairs}
        for what, error in found.items():
            if error > TOLERANCES[precision]:
                raise RequestError(
                    f"{name} gives wrong results: at call {call}, {what} of {eager.model.name} "
                    f"{'are' if what == 'embeddings' else 'is'} off by {error:.2g} of the right ones, "
                    f"where {TOLERANCES[precision]:g} is allowed: use backend eager"
                )
        worst = {tap: max(error, found[tap]) for tap, error in worst.items()}
    return worst

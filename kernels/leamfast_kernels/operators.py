"""Registration of the operators `torch.ops.leamfast.*`.

Written with the plain registry of PyTorch and not as `torch.library.custom_op`, whose wrapper costs three
times as much a call and imports torch's compiler, two seconds of it, at the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["operator"]

LIBRARY = torch.library.Library("leamfast", "DEF")


def operator(
    schema: str, anywhere: Callable[..., Any], cuda: Callable[..., Any] | None, fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Register an operator that writes to none of its arguments and has no gradient.

    Results never require one, also of arguments that do; a kernel is launched on the device of its tensors.

    Args:
        schema: `name(Tensor x, ...) -> Tensor`, a tensor first.
        anywhere: implementation in plain torch; every device but CUDA uses it, as a CPU does.
        cuda: launches a kernel; None where `anywhere` is used on CUDA too.
        fake: the same arguments -> results without values, for compilers.

    Returns:
        The operator.
    """
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, torch.library.fallthrough_kernel, "Autograd")
    LIBRARY.impl(name, _without_gradient(anywhere), "CompositeExplicitAutograd")
    if cuda is not None:
        LIBRARY.impl(name, _on_its_device(cuda), "CUDA")
    torch.library.register_fake(f"leamfast::{name}", fake, lib=LIBRARY)
    registered: Callable[..., Any] = getattr(torch.ops.leamfast, name).default
    return registered


def _without_gradient(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Switches gradients off where there are any: doing so costs as much as a small sum."""

    def run(*arguments: Any) -> Any:
        if not any(isinstance(value, Tensor) and value.requires_grad for value in arguments):
            return compute(*arguments)
        with torch.no_grad():
            return compute(*arguments)

    return run


def _on_its_device(launch: Callable[..., Any]) -> Callable[..., Any]:
    def run(tensor: Tensor, *others: Any) -> Any:
        with torch.no_grad(), torch.cuda.device(tensor.device):
            return launch(tensor, *others)

    return run

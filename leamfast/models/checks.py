"""What any network must satisfy, whatever it was loaded from."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leamfast.errors import RequestError

__all__ = ["check_network"]


def check_network(network: nn.Module, spec: str) -> None:
    """Raise a RequestError where images of a batch would influence each other, or values are not finite.

    Args:
        network: in evaluation mode.
        spec: what the user asked for, for the error.
    """
    values: dict[str, Tensor | None] = dict(network.named_parameters())
    for name, module in network.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        if module.running_mean is None or module.running_var is None:
            raise RequestError(
                f"model {spec!r}: {name} ({type(module).__name__}) must have running statistics, without "
                "which images of a batch influence each other: train it with track_running_stats=True"
            )
        values |= {f"{name}.{key}": value for key, value in module.named_buffers(recurse=False)}
    broken = next((k for k, v in values.items() if v is not None and not bool(v.isfinite().all())), None)
    if broken is not None:
        raise RequestError(
            f"model {spec!r} holds values in {broken} that are not finite: "
            "give weights from before its training diverged"
        )

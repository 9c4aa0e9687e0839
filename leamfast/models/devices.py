"""Where models compute: what a user may ask for, and what it is called."""

import hashlib
import platform
from pathlib import Path

import torch
from torch import Tensor

from leamfast.errors import RequestError

__all__ = ["check_device", "device_name", "processor_name", "upload"]


def check_device(device: str) -> None:
    """Raise a RequestError unless `device` is cpu, or a GPU that torch sees here."""
    try:
        asked = torch.device(device)
    except RuntimeError as exc:
        raise RequestError(f"--device must be cpu, cuda or cuda:N, got {device!r}") from exc
    if asked.type not in ("cpu", "cuda"):
        raise RequestError(f"--device must be cpu, cuda or cuda:N, got {device!r}")
    gpus = torch.cuda.device_count()
    if asked.type == "cuda" and (asked.index or 0) >= gpus:
        raise RequestError(f"--device {device} asks for a GPU, but torch sees {gpus} here: use --device cpu")


def device_name(device: str) -> str:
    """The GPU's name, or the processor's architecture and instruction set."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def processor_name(device: str) -> str:
    """What native code for a device was made for: the GPU, or the processor with all its instructions.

    Compilers use every instruction of the processor that they run on.
    """
    name = device_name(device)
    if torch.device(device).type == "cuda":
        return name
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{name} {platform.processor()}".rstrip()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    words = " ".join(sorted(flags.partition(":")[2].split()))
    return f"{name} {hashlib.sha256(words.encode()).hexdigest()[:8]}"


def upload(values: Tensor, device: torch.device) -> Tensor:
    """The values on a device; a GPU takes them while it computes, and the host goes on."""
    if device.type == "cuda" and not values.is_cuda:
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)

"""The most memory that a call holds at once, beyond what was held before it."""

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

from leamfast_bench.maps.timing import settle

__all__ = ["peak_memory"]

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(call: Callable[[], object], device: str) -> int | None:
    """Bytes: of the GPU's allocator, or of resident memory; None where the system does not tell.

    Args:
        call: what is watched.
        device: where it computes.
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        settle(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        settle(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what others have freed shall not serve this call unseen
        CLEAR.write_text("5")  # Linux: forget the peak so far
    except (OSError, AttributeError):
        call()
        return None
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) * 1024

"""A measurement in a process of its own, so that none finds what another has loaded, connected or grown."""

import multiprocessing as mp
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["apart", "peak_resident"]

STATUS = Path("/proc/self/status")
Result = TypeVar("Result")


def apart(function: Callable[..., Result], *args: Any) -> Result:
    """What a function gives in a new process."""
    with ProcessPoolExecutor(1, mp.get_context("spawn")) as process:
        return process.submit(function, *args).result()


def peak_resident() -> int | None:
    """Bytes of resident memory that this process has had at once; None where the system does not tell.

    Not `getrusage`: there a process inherits the peak of the one that started it.
    """
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024

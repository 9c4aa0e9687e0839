"""Kernel bodies run on a GPU where there is one (`pytest -m gpu`), and else under Triton's interpreter.

The interpreter must be asked for before a kernel is imported, so that it has a process of its own:
test_interpreter.py starts it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    collect_ignore = ["test_ahead_of_time.py"]  # the interpreter's process cannot compile


@pytest.fixture(scope="session")
def device() -> str:
    """Where the kernels under test run."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here")
    return "cuda"


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """Buffers of torch.empty start as NaN, and as the largest number where they hold ints."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    with np.errstate(all="ignore"):  # the interpreter computes with numpy, which warns of NaN and infinity
        yield
    torch.use_deterministic_algorithms(before)

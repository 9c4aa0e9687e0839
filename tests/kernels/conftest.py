"""The one dtype -> tolerance table and the fixtures of the kernel tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

# Against the reference in float64. Sums are float32 for the half types too, which are widened without error.
TOLERANCES: dict[torch.dtype, dict[str, float]] = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-12},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float16: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 1e-5, "atol": 1e-5},
}


@pytest.fixture(autouse=True, scope="module")
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=list(TOLERANCES), ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def assert_close(dtype: torch.dtype) -> Callable[[Tensor, Tensor], None]:
    """Compare a result with a reference at the tolerance of the input's dtype; NaN equals NaN."""

    def check(actual: Tensor, expected: Tensor) -> None:
        expected = expected.to(actual.dtype)
        torch.testing.assert_close(actual, expected, equal_nan=True, **TOLERANCES[dtype])

    return check


@pytest.fixture(params=[1, 2], ids=["1thread", "2threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Buffers of torch.empty start as NaN, and as the largest number where they hold ints."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)

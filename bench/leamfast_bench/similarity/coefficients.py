"""Bhattacharyya coefficients of all maps with all, beside the bare product of matrices as large."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leamfast_bench.kernels.measure import error_of
from leamfast_bench.kernels.plain import roots
from leamfast_bench.maps.timing import timed
from leamfast_bench.similarity.rows import OURS, Row, WrongAnswerError, timed_rows
from leamfast_kernels import bhattacharyya_matrix, bhattacharyya_matrix_reference

__all__ = ["BARE", "TWO_SETS", "measure_coefficients"]

BARE = "bare matrix product"
TWO_SETS = f"{OURS}, as two sets"
LIMIT = 1e-5  # relative error of float32 sums


def measure_coefficients(
    count: int, side: int, rounds: int, device: str, note: Callable[[str], None]
) -> dict[str, Any]:
    """Times of all pairs of random maps; of one set each pair is computed once, of two sets all are.

    Args:
        count: of maps.
        side: of them.
        rounds: in which each row is timed.
        device: where they lie.
        note: told of progress.

    Raises:
        WrongAnswerError: a row is not the reference.
    """
    note(f"BC of {count} maps of {side}x{side}")
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn((count, side, side), generator=generator).relu_().to(device)
    other, prepared = maps.clone(), roots(maps)
    calls: dict[str, Callable[[], Tensor]] = {
        OURS: partial(bhattacharyya_matrix, maps),
        TWO_SETS: partial(bhattacharyya_matrix, maps, other),
        BARE: partial(_product, prepared),
    }
    wanted = bhattacharyya_matrix_reference(maps, maps)
    errors = {}
    for name, call in calls.items():
        errors[name] = max(error_of(call(), wanted) for _ in range(2))
        if not errors[name] <= LIMIT:
            raise WrongAnswerError(f"BC, {name}: off by {errors[name]:.2g}, where {LIMIT:g} is allowed")
        timed(call, device)
    rows: list[Row] = timed_rows(calls, dict.fromkeys(calls, count**2), rounds, device, note)
    for row in rows:
        row |= {"error": errors[row["row"]]}
    return {"maps": count, "side": side, "rows": rows}


def _product(prepared: Tensor) -> Tensor:
    return prepared @ prepared.T

"""All rows of a case: checked, warmed up, and then timed in turn, beside the ceiling of the device."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leamfast.leam.compiling import has_compiler
from leamfast_bench.kernels.case import Arguments, Case, Form, Row, size_of
from leamfast_bench.kernels.operations import COMPILED
from leamfast_bench.maps.row import reason
from leamfast_bench.maps.timing import interleaved, spread_of, timed

__all__ = ["COPY", "PRODUCT", "error_of", "measure"]

COPY, PRODUCT = "a large copy", "a large matrix product"
ROTATED = 256 << 20  # bytes of inputs that are gone through, beyond what a cache holds
SETS = 64  # of inputs at most
SAMPLE = 0.02  # seconds that a sample takes at least

Result = dict[str, Any]


class Turns:
    """Calls with one set of inputs after the other, so many a sample."""

    def __init__(self, call: Callable[..., Any], sets: Sequence[Arguments]) -> None:
        self.call, self.sets, self.calls = call, itertools.cycle(sets), 1

    def __call__(self) -> object:
        for _ in range(self.calls):
            kept = self.call(*next(self.sets))
        return kept


def measure(case: Case, form: Form, compiled: bool, note: Callable[[str], None]) -> Result:
    """What came of every row of a case: its error and times, or why it has none.

    Args:
        case: what is computed.
        form: how much is measured.
        compiled: whether the reference is compiled too.
        note: told of rows that are wrong.
    """
    torch.manual_seed(0)
    first = case.draw()
    number = max(2, min(SETS, math.ceil(ROTATED / max(1, size_of(first)))))
    sets = [first, *(case.draw() for _ in range(number - 1))]
    wanted = case.reference(*first)
    results, turns = [], {}
    for row in case.rows:
        if row.name == COMPILED:
            if not compiled:
                continue
            row = replace(row, call=torch.compile(row.call, dynamic=False))
        result, turn = _prepare(row, sets, wanted, form.device)
        results.append(result)
        if turn is None:
            note(f"  {row.name}: {result['why']}")
        else:
            turns[row.name] = turn
    ceiling, work = (COPY, case.transferred) if case.operations is None else (PRODUCT, case.operations)
    turns[ceiling] = Turns(*(_copy if ceiling == COPY else _product)(form))
    for turn in turns.values():
        turn.calls = max(1, math.ceil(SAMPLE / max(1e-6, timed(turn, form.device))))
    seconds = interleaved(turns, dict.fromkeys(turns, form.rounds), form.device)
    of_ceiling = spread_of(seconds.pop(ceiling))[1] / turns[ceiling].calls
    rate = (2 * form.copied if ceiling == COPY else 2 * form.product**3) / of_ceiling
    for result in (result for result in results if result["row"] in seconds):
        low, middle, high = (
            value / turns[result["row"]].calls for value in spread_of(seconds[result["row"]])
        )
        result |= {"median_seconds": middle, "quartiles": [low, high], "calls": turns[result["row"]].calls}
        result |= {"rate": work / middle, "share_of_ceiling": work / middle / rate}
        note(f"  {result['row']}: {1e3 * middle:.3g} ms")
    about = {"kernel": case.kernel, "case": case.name, "transferred": case.transferred}
    about |= {"operations": case.operations, "sets": number, "ceiling": ceiling, "ceiling_rate": rate}
    return about | {"ratios": _ratios(results), "rows": results}


def _prepare(row: Row, sets: Sequence[Arguments], wanted: object, device: str) -> tuple[Result, Turns | None]:
    """Compare a row's first two calls with the reference; what is wrong is not timed."""
    result: Result = {"row": row.name, "why": ""}
    try:
        given = sets if row.prepare is None else [row.prepare(*arguments) for arguments in sets]
        error = max(error_of(row.call(*given[0]), wanted) for _ in range(2))
        timed(partial(row.call, *given[-1]), device)
    except Exception as exc:  # whatever a compiler raises, the others go on
        return result | {"why": reason(exc)}, None
    result |= {"error": error, "limit": row.limit}
    if not error <= row.limit:
        why = f"wrong: off by {error:.2g} from the reference, where {row.limit:g} is allowed"
        return result | {"why": why}, None
    return result, Turns(row.call, given)


def error_of(found: object, wanted: object) -> float:
    """The largest ||found - wanted|| / ||wanted|| of the tensors of a result.

    Infinite where shapes differ or NaN stands in another place.
    """
    if isinstance(wanted, Tensor) and isinstance(found, Tensor):
        return _error(found, wanted)
    if isinstance(wanted, tuple | list) and isinstance(found, tuple | list) and len(found) == len(wanted):
        return max(error_of(*both) for both in zip(found, wanted, strict=True))
    return math.inf


def _error(found: Tensor, wanted: Tensor) -> float:
    found, wanted = found.double(), wanted.double()
    if found.shape != wanted.shape or not torch.equal(found.isnan(), wanted.isnan()):
        return math.inf
    off, size = float((found - wanted).nan_to_num(0).norm()), float(wanted.nan_to_num(0).norm())
    return off / size if size > 0 else math.inf if off > 0 else 0.0


def _ratios(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How many times as long as ours each other row takes."""
    own, *others = results
    if "median_seconds" not in own:
        return {}
    return {
        other["row"]: other["median_seconds"] / own["median_seconds"]
        for other in others
        if "median_seconds" in other
    }


def _copy(form: Form) -> tuple[Callable[..., Any], list[Arguments]]:
    source = torch.randn(form.copied // 4, device=form.device)
    return torch.Tensor.copy_, [(torch.empty_like(source).zero_(), source)]


def _product(form: Form) -> tuple[Callable[..., Any], list[Arguments]]:
    first, second = torch.randn((2, form.product, form.product), device=form.device)
    return torch.mm, [(first, second)]


def may_compile(form: Form) -> str:
    """Why references are not compiled, empty where they can be."""
    if form.compiled == "none":
        return "references are compiled in the full form"
    if torch.device(form.device).type == "cpu" and not has_compiler():
        return "there is no C++ compiler"
    return ""

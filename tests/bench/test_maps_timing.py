"""Timing, memory and arithmetic of `leamfast bench maps`, on fabricated times."""

import pytest
import torch
from torch import nn

from leamfast import FaceModel
from leamfast_bench.maps import timing
from leamfast_bench.maps.case import Case
from leamfast_bench.maps.flops import gflop, share_of_peak
from leamfast_bench.maps.measure import ratios, statistics_of
from leamfast_bench.maps.memory import CLEAR, peak_memory
from leamfast_bench.maps.timing import interleaved, spread_of, timed


@pytest.fixture
def clock(monkeypatch):
    """A clock that calls move by hand."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def passing(seconds: float):
        def call() -> None:
            now[0] += seconds

        return call

    return passing


def test_seconds_are_those_of_the_call(clock):
    assert timed(clock(3.0), "cpu") == 3.0


def test_rounds_rotate_and_some_rows_stop_early(clock):
    order: list[str] = []
    waits = {"a": clock(1.0), "b": clock(2.0), "c": clock(4.0)}

    def call(name: str):
        def run() -> None:
            order.append(name)
            waits[name]()

        return run

    seconds = interleaved({name: call(name) for name in waits}, {"a": 4, "b": 2, "c": 4}, "cpu")
    assert seconds == {"a": [1.0] * 4, "b": [2.0] * 2, "c": [4.0] * 4}
    assert "".join(order) == "abc" + "bca" + "ca" + "ac"


def test_nothing_to_time():
    assert interleaved({}, {}, "cpu") == {}


def test_quartiles():
    assert spread_of([5.0, 1.0, 2.0, 4.0, 3.0]) == (2.0, 3.0, 4.0)
    assert spread_of([7.0]) == (7.0, 7.0, 7.0)


def test_statistics_of_fabricated_times():
    found = statistics_of([2.0, 4.0, 3.0, 5.0, 1.0], 12, [10.0, 7.0, 2.0, 3.5])
    assert found["seconds"] == [2.0, 4.0, 3.0, 5.0, 1.0]
    assert found["median_seconds"] == 3.0
    assert found["images_per_second"] == 4.0
    assert found["quartiles"] == [3.0, 6.0]  # images/s at 4 and 2 seconds
    assert found["set_up_seconds"] == 10.0 + 4.0 + 0.0 + 0.5


def row(name: str, group: str, median: float | None, precision: str = "fp32") -> dict:
    found = {"row": name, "group": group, "precision": precision, "why": ""}
    return found if median is None else found | {"median_seconds": median}


def test_ratios_are_those_of_the_medians():
    rows = [
        row("leamfast eager", "ours", 2.0),
        row("leamfast compiled", "ours", 1.0),
        row("leamfast compiled, bf16", "ours", 0.5, "bf16"),
        row("leamfast missing", "ours", None),
        row("loop by hand", "by hand", 1.5),
        row("package", "one pass", None),
    ]
    best, times = ratios(rows)
    assert best == "leamfast compiled"  # of those in float32
    assert times["leamfast compiled"] == {
        "leamfast eager": 2.0,
        "leamfast compiled, bf16": 0.5,
        "loop by hand": 1.5,
    }
    assert times["leamfast eager"]["loop by hand"] == 0.75
    assert set(times) == {"leamfast eager", "leamfast compiled", "leamfast compiled, bf16"}


def test_ratios_without_a_row_of_ours():
    assert ratios([row("leamfast eager", "ours", None), row("loop by hand", "by hand", 1.0)]) == ("", {})


@pytest.mark.skipif(not CLEAR.exists(), reason="the system does not tell peaks of memory")
def test_peak_memory_is_what_a_call_holds_at_once():
    def hold() -> float:
        return float(torch.ones(16 << 20).sum())  # 64 MiB

    def nothing() -> None:
        pass

    peak = peak_memory(hold, "cpu")
    assert peak is not None
    assert 60 << 20 < peak < 90 << 20
    small = peak_memory(nothing, "cpu")
    assert small is not None
    assert small < 8 << 20


def test_memory_that_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr("leamfast_bench.maps.memory.CLEAR", tmp_path / "absent" / "clear_refs")
    calls: list[int] = []
    assert peak_memory(lambda: calls.append(1), "cpu") is None
    assert calls == [1]


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.second = nn.Conv2d(4, 5, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)).mean(dim=(2, 3))


def test_arithmetic_is_forward_and_the_gradient_to_the_first_tap():
    torch.manual_seed(0)
    model = FaceModel("two", "two", Two().eval().requires_grad_(False), None, "")
    case = Case(model, ("first", "second"), torch.rand(3, 3, 8, 8), torch.rand(3, 5))
    first, second = 2 * 3 * 4 * 9 * 64, 2 * 4 * 5 * 64
    assert gflop(case) == pytest.approx((first + 2 * second) / 1e9)  # nothing behind the first tap


def test_shares_of_a_known_peak():
    assert share_of_peak(33.5e3, "NVIDIA H100 80GB HBM3", "fp32") == 0.5
    assert share_of_peak(33.5e3, "x86_64 AVX2", "fp32") is None

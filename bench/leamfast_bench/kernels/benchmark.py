"""`leamfast bench kernels`: time of every operation of leamfast_kernels, beside plain PyTorch and the device.

All rows of a case, and a large copy or matrix product, run in one process in turn, on random inputs that are
changed from call to call so that none is found in a cache. What is not right is not timed.
"""

from dataclasses import replace
from typing import Any

import torch

from leamfast.models.devices import device_name
from leamfast_bench.kernels.case import Form
from leamfast_bench.kernels.measure import may_compile, measure
from leamfast_bench.kernels.operations import OPERATIONS
from leamfast_bench.kernels.tables import tables
from leamfast_bench.maps.caches import empty_caches
from leamfast_bench.registry import Benchmark, Options

__all__ = ["BENCHMARK", "FULL", "FULL_CUDA", "SMALL"]

MIB, GIB = 1 << 20, 1 << 30

FULL = Form(
    device="cpu",
    images=16,
    taps=((64, 112, 112), (64, 56, 56), (256, 14, 14)),
    dtypes=(torch.float32,),
    maps=256,
    cells=(7, 28),
    side=112,
    compared=2000,
    grids=(28, 56),
    rounds=15,
    copied=256 * MIB,
    product=2048,
    compiled="first",
)
FULL_CUDA = replace(
    FULL,
    images=256,
    dtypes=(torch.float32, torch.bfloat16),
    maps=4096,
    compared=10_000,
    rounds=15,
    copied=GIB,
    product=8192,
    compiled="all",
)
SMALL = replace(
    FULL,
    images=4,
    taps=((64, 56, 56), (256, 14, 14)),
    maps=64,
    cells=(7,),
    compared=500,
    grids=(28,),
    rounds=3,
    copied=64 * MIB,
    product=1024,
    compiled="none",
)


def run(options: Options) -> dict[str, Any]:
    """All cases of all operations, and the operations that are not there."""
    cuda = torch.device(options.device).type == "cuda"
    form = replace(SMALL if options.small else FULL_CUDA if cuda else FULL, device=options.device)
    found: dict[str, Any] = {"device": device_name(options.device), "threads": options.threads}
    found |= {"compiled": may_compile(form), "cases": [], "left_out": {}}
    with empty_caches():
        for name, cases in OPERATIONS.items():
            compiled = found["compiled"] == ""
            try:
                for case in cases(form):
                    options.note(case.name)
                    found["cases"].append(measure(case, form, compiled, options.note))
                    compiled = compiled and form.compiled == "all"
            except ImportError as exc:
                found["left_out"][name] = str(exc)
            torch.compiler.reset()
    return found


BENCHMARK = Benchmark(
    "speed of the operations of leamfast_kernels, beside plain PyTorch and what the device can do",
    (),
    run,
    tables,
)

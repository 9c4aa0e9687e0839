"""Every kernel with realistic constants, to be compiled ahead of time."""

from __future__ import annotations

import triton.language as tl

from leamfast_kernels.gpu.aggregate import aggregate_kernel
from leamfast_kernels.gpu.aggregate_backward import aggregate_backward_kernel
from leamfast_kernels.tuning import aggregate_blocks
from tests.kernels.gpu.ahead_of_time import Variant

INTS = ("channels", "pixels", "width", "blocks")


def _aggregate(dtype: str, channels: int, side: int, channels_last: bool, backward: bool) -> Variant:
    tensors = ("acts", "grads", "out") if backward else ("acts", "grads")
    block_c, block_p = aggregate_blocks(channels, side * side, channels_last)
    strides = [f"{name}_{axis}" for name in tensors for axis in ("image", "channel", "row", "column")]
    unit = [f"{name}_{'channel' if channels_last else 'column'}" for name in tensors]
    arguments = {f"p_{name}": f"*{dtype}" for name in tensors} | {"p_maps": "*fp32"}
    others = ("scale", "shift", "slope") if backward else ("maxima", "sums")
    arguments |= {f"p_{name}": "*fp32" for name in others}
    arguments |= dict.fromkeys((*INTS, *(name for name in strides if name not in unit)), "i32")
    constants = {"BLOCK_C": block_c, "BLOCK_P": block_p, "FLAT": True, "WIDE": False}
    constants |= {"ACCUMULATOR": tl.float32} | dict.fromkeys(unit, 1)
    name = f"aggregate{'_backward' * backward} {dtype} {channels}x{side}x{side}"
    return Variant(
        name + " channels_last" * channels_last,
        aggregate_backward_kernel if backward else aggregate_kernel,
        arguments,
        constants if backward else constants | {"STATISTICS": True},
        odd=("blocks",),
    )


VARIANTS = [
    _aggregate(dtype, 64, side, last, backward)
    for backward in (False, True)
    for dtype in ("bf16", "fp32")
    for side in (56, 112)
    for last in (False, True)
]

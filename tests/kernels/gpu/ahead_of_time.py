"""Compile kernels for GPUs that are not here, and say what they need.

Launchers run on tensors without data, and what they pass to Triton is compiled for each GPU: constants,
types and alignment are those of a real launch. `python -m tests.kernels.gpu.ahead_of_time` writes the table
that the tests compare with. It does not work in a process with TRITON_INTERPRET set.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver

TABLE = Path(__file__).with_name("resources.json")
SHARED = {80: 163 << 10, 90: 227 << 10}  # bytes of shared memory that a program may have (CUDA C++ guide)
TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


@dataclass(frozen=True)
class Variant:
    """A launch of a kernel with realistic sizes.

    Attributes:
        name: of the variant.
        launch: runs the launcher on tensors of the meta device.
        fusion: whether products and sums may be rounded once.
        loads: bytes that a thread must read at a time somewhere.
        stores: bytes that a thread must write at a time somewhere.
        kernel: name of the kernel, where a launcher launches several.
    """

    name: str
    launch: Callable[[], object]
    fusion: bool
    loads: int = 16
    stores: int = 0
    kernel: str = ""


@dataclass(frozen=True)
class Target:
    """Stands in for the driver of a GPU that is not here."""

    capability: int

    def get_current_target(self) -> GPUTarget:
        """The GPU."""
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        """A number that no GPU of this machine has: Triton keeps what it compiled by it."""
        return -self.capability

    def get_current_stream(self, device: int) -> int:
        """Any."""
        return device


def launched(variant: Variant, capability: int) -> dict[str, Any]:
    """What Triton is asked to compile by a variant."""
    found: list[dict[str, Any]] = []

    def keep(*, fn: Any, compile: dict[str, Any], **_: object) -> bool:
        found.append({"function": fn.jit_function} | compile)
        return True  # nothing is to be compiled or run

    with (
        mock.patch.object(driver, "_active", Target(capability)),
        mock.patch.object(knobs.runtime, "jit_cache_hook", keep),
        knobs.language.scope(),
    ):
        knobs.language.default_fp_fusion = not variant.fusion  # a launcher must not rely on it
        variant.launch()
    (only,) = (launch for launch in found if variant.kernel in ("", launch["function"].__name__))
    return only


def compiled(variant: Variant, capability: int) -> dict[str, Any]:
    """Registers, stack, shared bytes, fusion and the global loads and stores of a variant."""
    launch = launched(variant, capability)
    source = ASTSource(launch["function"], launch["signature"], launch["constants"], launch["configs"][0])
    options = {name: launch[name] for name in ("num_warps", "num_ctas", "num_stages", "enable_fp_fusion")}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [str(TOOL), "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{word}:(\d+)", usage)[1]) for word in ("REG", "STACK"))
    transfers = re.findall(r"\b((?:ld|st)\.global(?:\.\w+)*)", made.asm["ptx"])
    return {
        "warps": made.metadata.num_warps,
        "fusion": made.metadata.enable_fp_fusion,
        "registers": registers,
        "stack": stack,
        "shared": made.metadata.shared,
        "transfers": sorted(set(transfers)),
    }


def widest(transfers: list[str], kind: str) -> int:
    """Bytes of the widest transfer, of those that begin with `kind`: 16 for `ld.global.v4.b32`."""
    sizes = [re.search(r"(?:\.v(\d))?\.b(\d+)$", name) for name in transfers if name.startswith(kind)]
    return max((int(size[1] or 1) * int(size[2]) // 8 for size in sizes if size), default=0)


def table(variants: list[Variant]) -> dict[str, Any]:
    """What every variant needs, by name and capability, and the Triton that compiled it."""
    found = {v.name: {f"sm_{capability}": compiled(v, capability) for capability in SHARED} for v in variants}
    return {"triton": triton.__version__, "kernels": found}


def main() -> None:
    """Write the table anew."""
    from tests.kernels.gpu.variants import VARIANTS

    TABLE.write_text(json.dumps(table(VARIANTS), indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Compile kernels for GPUs that are not here, and say what they need.

`python -m tests.kernels.gpu.ahead_of_time` writes the table that the tests compare with. It does not work in
a process with TRITON_INTERPRET set.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TABLE = Path(__file__).with_name("resources.json")
SHARED = {80: 163 << 10, 90: 227 << 10}  # bytes of shared memory that a program may have (CUDA C++ guide)
TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


@dataclass(frozen=True)
class Variant:
    """A kernel with realistic constants.

    Attributes:
        name: of the variant.
        kernel: the function.
        arguments: name -> type of what is given at run time, such as `*bf16` or `i32`.
        constants: name -> value of the rest: constexprs, and strides of 1.
        warps: of a program.
        odd: arguments that are no multiples of 16.
        vector: whether it must read several values at a time.
        fusion: whether products and sums may be rounded once.
    """

    name: str
    kernel: Any
    arguments: Mapping[str, str]
    constants: Mapping[str, Any]
    warps: int = 4
    odd: tuple[str, ...] = ()
    vector: bool = True
    fusion: bool = True


def compiled(variant: Variant, capability: int) -> dict[str, Any]:
    """Registers, stack, shared bytes and the global loads and stores of a variant for sm_80 or sm_90."""
    names = variant.kernel.arg_names
    signature = {name: variant.arguments.get(name, "constexpr") for name in names}
    missing = [name for name in names if name not in variant.arguments and name not in variant.constants]
    assert not missing, f"{variant.name}: neither argument nor constant: {missing}"
    whole = {name for name, kind in variant.arguments.items() if not kind.startswith("fp")}
    even = [i for i, name in enumerate(names) if name in whole.difference(variant.odd)]
    source = ASTSource(
        variant.kernel,
        signature=signature,
        constexprs={name: variant.constants[name] for name in names if name in variant.constants},
        attrs={(i,): [["tt.divisibility", 16]] for i in even},
    )
    target = GPUTarget("cuda", capability, 32)
    options = {"num_warps": variant.warps, "enable_fp_fusion": variant.fusion}
    made = triton.compile(source, target=target, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [str(TOOL), "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{word}:(\d+)", usage)[1]) for word in ("REG", "STACK"))
    transfers = re.findall(r"\b((?:ld|st)\.global(?:\.\w+)*)", made.asm["ptx"])
    return {
        "registers": registers,
        "stack": stack,
        "shared": made.metadata.shared,
        "transfers": sorted(set(transfers)),
    }


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

"""Every kernel compiled for GPUs that are not here: no spilled registers, vector loads, its needs."""

from __future__ import annotations

import json

import pytest

triton = pytest.importorskip("triton", reason="Triton is not to be had for this system")

from tests.kernels.gpu.ahead_of_time import SHARED, TABLE, Variant, compiled, widest  # noqa: E402
from tests.kernels.gpu.variants import VARIANTS  # noqa: E402

KEPT = json.loads(TABLE.read_text())


@pytest.mark.parametrize("capability", SHARED, ids="sm_{}".format)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_kernel_compiles_and_needs_what_the_table_says(variant: Variant, capability: int) -> None:
    found = compiled(variant, capability)
    assert found["stack"] == 0, "registers are spilled to memory"
    assert found["shared"] <= SHARED[capability]
    assert found["fusion"] == variant.fusion, "the launcher relies on Triton's default"
    assert widest(found["transfers"], "ld.") >= variant.loads
    assert widest(found["transfers"], "st.") >= variant.stores
    if triton.__version__ == KEPT["triton"]:  # another one allocates registers in another way
        assert found == KEPT["kernels"][variant.name][f"sm_{capability}"]


def test_the_table_holds_every_kernel() -> None:
    assert set(KEPT["kernels"]) == {variant.name for variant in VARIANTS}

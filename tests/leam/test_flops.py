"""The work of a model, beside torch's own counter."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from leamfast.leam.flops import count_flops
from leamfast.models.loading import load_model


@pytest.mark.parametrize("spec", ["demo", "AF_R18=random:0", "IR_CASIA=random:0"])
def test_the_same_number_as_torchs_counter(spec):
    model = load_model(spec)
    size = model.preprocessing.size
    with FlopCounterMode(display=False) as counter:
        model.embed(torch.zeros(1, 3, size, size))
    assert count_flops(model) == 2 * counter.get_total_flops() > 1e8


def test_counting_imports_no_compiler():
    code = (
        "import sys\n"
        "from leamfast.leam.flops import count_flops\n"
        "from leamfast.models.loading import load_model\n"
        "assert count_flops(load_model('demo')) > 0\n"
        "assert 'torch._dynamo' not in sys.modules and 'torch._inductor' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

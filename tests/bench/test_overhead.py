"""`leamfast bench overhead`: the bare pass is a right one, and both are timed."""

import pytest
import torch

from leamfast_bench import overhead
from leamfast_bench.registry import Options, run
from tests.leam.conftest import small_iresnet  # noqa: F401 (a fixture)


def test_the_bare_pass_gives_the_gradient_at_the_tap(small_iresnet):  # noqa: F811
    generator = torch.Generator().manual_seed(0)
    images, others = torch.randn(2, 3, 3, 32, 32, generator=generator)
    references = small_iresnet.embed(others)
    kept: list[torch.Tensor] = []

    def keep(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.requires_grad_())
        return output

    handle = small_iresnet.network.conv1.register_forward_hook(keep)
    loss = (1 - torch.cosine_similarity(small_iresnet.network(images), references)).sum()
    (wanted,) = torch.autograd.grad(loss, kept)
    handle.remove()
    once = overhead.bare(small_iresnet, "conv1", images, references)
    for _ in range(2):  # leaves no hook behind
        assert torch.allclose(once(), wanted, atol=1e-6)
    assert torch.is_grad_enabled()
    assert wanted.abs().max() > 1e-4


@pytest.fixture(scope="module")
def found() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overhead, "MODEL", "demo")
        return run("overhead", Options(small=True, note=lambda text: None))


def test_both_are_timed(found):
    results = found["results"]
    assert found["metadata"]["benchmark"] == "overhead"
    assert (results["model"], results["batch"], len(results["taps"])) == ("demo", 4, 9)
    assert results["median_seconds"].keys() == results["quartiles"].keys() == {"bare", "maps"}
    for name, seconds in results["median_seconds"].items():
        low, middle, high = results["quartiles"][name]
        assert 0 < low <= middle <= high
        assert middle == pytest.approx(seconds)
    assert results["ratio"] == pytest.approx(
        results["median_seconds"]["maps"] / results["median_seconds"]["bare"]
    )


def test_the_table(found):
    (table,) = overhead.tables(found["results"])
    assert table.title == "demo, batch 4, 9 taps"
    assert [row[0] for row in table.rows] == ["bare", "maps", "ratio"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert float(table.rows[2][1]) == pytest.approx(found["results"]["ratio"], abs=1e-3)

"""The kernel of Sinkhorn's iterations."""

from __future__ import annotations

import pytest
import torch

from leamfast_kernels.emd.rounding import DIAMETERS, certificates, excess_of
from leamfast_kernels.emd.sinkhorn import sinkhorn_bracket, sinkhorn_reference

pytestmark = pytest.mark.gpu

GROUNDS = list(DIAMETERS)
WISHES = {(1, 2): 0.02, (3, 5): 0.02, (6, 6): 0.02, (9, 8): 0.08}
"""Shape -> tolerance; the last with more sources than a tile has rows, where the interpreter is slow."""
ROUNDING = 5e-4  # of potentials in float32, units of the image side; eps goes down to 2e-3


def unit_excess(count, height, width):
    """(excess of mass 1, mass, excess) of random pairs, the first of equal maps."""
    p, q = torch.rand(2, count, height, width, dtype=torch.float64) ** 2
    q[0] = p[0]
    excess = excess_of(p, q)
    mass = excess.clamp(min=0).sum(dim=(1, 2))
    return excess / mass[:, None, None].clamp(min=1e-300), mass, excess


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("shape", WISHES, ids=str)
def test_potentials_are_those_of_the_reference(shape, ground, device) -> None:
    from leamfast_kernels.gpu.sinkhorn import launch_sinkhorn

    unit, mass, excess = (x.to(device) for x in unit_excess(2, *shape))
    arguments = (unit, mass, ground, WISHES[shape], 0.0)
    found, eps, iterations = launch_sinkhorn(*arguments)
    wanted, wanted_eps, wanted_iterations = sinkhorn_reference(*arguments, torch.float64)
    assert found.dtype == torch.float32
    assert found.shape == unit.shape
    assert torch.equal(iterations, wanted_iterations)
    assert iterations[0] == 0
    torch.testing.assert_close(eps, wanted_eps)
    torch.testing.assert_close(found, wanted, rtol=0, atol=ROUNDING)
    ours, theirs = (certificates(excess, x, eps, ground) for x in (found, wanted))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("ground", GROUNDS)
def test_each_pair_stops_by_itself(ground, device) -> None:
    from leamfast_kernels.gpu.sinkhorn import launch_sinkhorn

    unit, mass, _ = (x.to(device) for x in unit_excess(3, 4, 4))
    unit[1] = 0
    unit[1, 0, 0], unit[1, 3, 2] = 1, -1  # one plan only: known at the first level
    together = launch_sinkhorn(unit, mass, ground, 0.03, 0.0)
    assert together[2][1] == 6
    assert together[2][2] > 6
    for pair in range(3):
        alone = launch_sinkhorn(unit[pair : pair + 1], mass[pair : pair + 1], ground, 0.03, 0.0)
        for ours, theirs in zip(alone, together, strict=True):
            assert torch.equal(ours[0], theirs[pair])


@pytest.mark.parametrize("ground", GROUNDS)
def test_potentials_are_finite_where_masses_are_extreme(ground, device) -> None:
    """Masses down to 1e-30: sums leave the range of float32 on the way, and come back."""
    from leamfast_kernels.gpu.sinkhorn import launch_sinkhorn

    unit = torch.zeros(1, 3, 4, dtype=torch.float64)
    unit[0, 0] = torch.tensor([1.0, 1e-10, 1e-20, 1e-30])
    unit[0, 2] = -torch.tensor([1e-30, 1e-20, 1e-10, 1.0])
    unit, mass = unit.to(device), torch.ones(1, dtype=torch.float64, device=device)
    found, eps, _ = launch_sinkhorn(unit, mass, ground, 0.0, 0.05)
    assert found.isfinite().all()
    lower, upper = certificates(unit, found, eps, ground)
    assert 0.9 < lower.item() <= upper.item() < 1.5


def test_an_empty_batch(device) -> None:
    from leamfast_kernels.gpu.sinkhorn import launch_sinkhorn

    empty = torch.ones(0, 4, 4, dtype=torch.float64, device=device)
    found = launch_sinkhorn(empty, empty[:, 0, 0], "l1", 0.01, 0.0)
    assert [tuple(x.shape) for x in found] == [(0, 4, 4), (0,), (0,)]


@pytest.mark.parametrize("ground", GROUNDS)
def test_brackets_are_those_of_a_cpu(ground, device) -> None:
    p, q = torch.rand(2, 20, 12, 12, dtype=torch.float64) ** 2
    found, wanted = sinkhorn_bracket(p.to(device), q.to(device), ground), sinkhorn_bracket(p, q, ground)
    lower, upper = found.lower.cpu(), found.upper.cpu()
    assert (torch.maximum(lower, wanted.lower) <= torch.minimum(upper, wanted.upper)).all()
    assert (upper - lower <= 0.02 * upper).all()

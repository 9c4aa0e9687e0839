"""emd, emd_pairs and emd_matrix: 1-Wasserstein distances on grids, each with its certificate."""

from __future__ import annotations

import doctest
import importlib
import math
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from torch import Tensor

from leamfast_kernels import METHODS, EmdResult, emd, emd_lower_bound, emd_matrix, emd_pairs
from leamfast_kernels.emd import arcs, distance, simplex, together
from leamfast_kernels.emd.ground import between

GROUNDS = ["euclidean", "l1"]
MODULES = [
    module.name for module in pkgutil.iter_modules([str(Path(simplex.__file__).parent)]) if not module.ispkg
]
FIELDS = ("value", "lower", "upper", "method")


def dirac(height: int, width: int, *cells: tuple[int, int]) -> Tensor:
    """One map with equal masses at cells (row, column)."""
    maps = torch.zeros(1, height, width, dtype=torch.float64)
    for row, column in cells:
        maps[0, row, column] += 1
    return maps


def some_maps(kind: str, count: int, height: int, width: int) -> Tensor:
    shape = (count, height, width)
    if kind == "random":
        return torch.rand(shape, dtype=torch.float64)
    if kind == "sparse":
        maps = torch.rand(shape, dtype=torch.float64) * (torch.rand(shape) < 0.08)
        maps[:, height // 2, width // 2] += 0.01
        return maps
    if kind == "smooth":
        noise = torch.randn(count, 1, height, width, dtype=torch.float64)
        blurred = torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2, count_include_pad=False)
        return (blurred[:, 0] + 0.1).clamp_min(0) + (torch.rand(shape) < 0.02)
    if kind == "checkerboard":
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        phases = torch.arange(count)[:, None, None]
        return ((rows + columns + phases) % 2 + 1e-3 * phases).double() + 1e-6
    if kind == "single":
        maps = torch.zeros(shape, dtype=torch.float64)
        maps.view(count, -1).scatter_(1, torch.randint(height * width, (count, 1)), 1)
        return maps
    assert kind == "near"
    maps = torch.rand(1, height, width, dtype=torch.float64).repeat(count, 1, 1)
    return maps * (1 + 1e-5 * torch.rand(shape, dtype=torch.float64))


def by_pot(p: Tensor, q: Tensor, ground: str = "euclidean") -> Tensor:
    """Distances as POT gives them for whole maps."""
    height, width = p.shape[1:]
    rows, columns = (axis.ravel() for axis in np.mgrid[:height, :width])
    dy, dx = (np.abs(axis[:, None] - axis) / cells for axis, cells in ((rows, height), (columns, width)))
    costs = dy + dx if ground == "l1" else np.hypot(dy, dx)
    shares = [
        (maps / maps.sum(dim=(1, 2), keepdim=True)).flatten(1).numpy() for maps in (p.double(), q.double())
    ]
    found = [ot.emd2(a, b, costs, numItermax=10**8) for a, b in zip(*shares, strict=True)]
    return torch.tensor(found, dtype=torch.float64)


def same(found: EmdResult, wanted: EmdResult) -> bool:
    return all(
        torch.equal(
            getattr(found, name).double().nan_to_num(-1), getattr(wanted, name).double().nan_to_num(-1)
        )
        for name in FIELDS
    )


def assert_certified(found: EmdResult) -> None:
    solved = found.method != 0
    assert torch.equal(solved, ~found.value.isnan())
    lower, value, upper = found.lower[solved], found.value[solved], found.upper[solved]
    assert ((lower <= value) & (value <= upper)).all()
    assert (upper - lower <= 1e-9 * upper + 1e-12).all()


# Exact numbers


def test_cases_worked_by_hand() -> None:
    p = torch.cat(
        [dirac(4, 4, (0, 0)), dirac(4, 4, (0, 0), (3, 3)), dirac(4, 4, (0, 0), (0, 1)), dirac(4, 4, (1, 2))]
    )
    q = torch.cat(
        [dirac(4, 4, (3, 0)), dirac(4, 4, (0, 3), (3, 0)), dirac(4, 4, (0, 1), (0, 2)), dirac(4, 4, (2, 1))]
    )
    # Three down of four; each half by three; one half by two, the other stays; one diagonal.
    found = emd(p, q)
    wanted = torch.tensor([0.75, 0.75, 0.25, math.sqrt(2) / 4], dtype=torch.float64)
    torch.testing.assert_close(found.value, wanted, rtol=1e-15, atol=0)
    assert found.value.dtype == found.lower.dtype == found.upper.dtype == torch.float64
    assert found.method.tolist() == [1, 1, 1, 1]
    assert found.methods == ["exact"] * 4
    wanted[3] = 0.5
    torch.testing.assert_close(emd(p, q, "l1").value, wanted, rtol=1e-15, atol=0)


def test_both_axes_of_a_grid_count_in_sides_of_the_image() -> None:
    p, down, across = dirac(2, 8, (0, 0)), dirac(2, 8, (1, 0)), dirac(2, 8, (0, 1))
    assert emd(p, down).value.item() == 0.5
    assert emd(p, across).value.item() == 0.125
    both = emd(p, dirac(2, 8, (1, 1)))
    assert both.value.item() == pytest.approx(math.hypot(0.5, 0.125), rel=1e-15)


@pytest.mark.parametrize("step", [(0, 1), (3, 0), (2, 5)])
@pytest.mark.parametrize("ground", GROUNDS)
def test_a_translation_costs_its_length(step, ground) -> None:
    p = torch.zeros(1, 20, 20, dtype=torch.float64)
    p[0, 3:12, 2:11] = torch.rand(9, 9)
    found = emd(p, p.roll(step, dims=(1, 2)), ground)
    length = sum(step) if ground == "l1" else math.hypot(*step)
    assert found.value.item() == pytest.approx(length / 20, rel=1e-12)
    assert_certified(found)


def test_identical_maps_have_distance_zero() -> None:
    maps = some_maps("random", 3, 7, 9)
    for found in (emd(maps, maps), emd(maps, maps.clone()), emd(maps, maps * 4)):
        assert not found.value.any()
        assert not found.upper.any()
        assert found.methods == ["exact"] * 3
    assert emd(torch.ones(1, 1, 1), torch.full((1, 1, 1), 3.0)).value.item() == 0


@pytest.mark.parametrize("cells", [(1, 40), (40, 1)])
@pytest.mark.parametrize("ground", GROUNDS)
def test_maps_of_one_row_agree_with_scipy(cells, ground) -> None:
    p, q = some_maps("sparse", 5, *cells), some_maps("smooth", 5, *cells)
    places = np.arange(40) / 40
    wanted = [
        wasserstein_distance(places, places, a.flatten().numpy(), b.flatten().numpy())
        for a, b in zip(p, q, strict=True)
    ]
    found = emd(p, q, ground)
    torch.testing.assert_close(found.value, torch.tensor(wanted, dtype=torch.float64), rtol=1e-10, atol=1e-14)


# Against POT


@pytest.mark.parametrize("kind", ["random", "sparse", "smooth", "checkerboard", "single", "near"])
@pytest.mark.parametrize(
    ("cells", "ground"), [((1, 7), "l1"), ((8, 12), "euclidean"), ((19, 23), "euclidean"), ((15, 15), "l1")]
)
def test_agrees_with_pot(kind, cells, ground) -> None:
    p, q = some_maps(kind, 4, *cells), some_maps(kind, 4, *cells).roll(1, dims=0)
    found = emd(p, q, ground)
    # Shares are rounded at 1e-16, which is more of the little that maps this close do not share.
    rtol = 1e-9 if kind != "near" else 1e-7
    torch.testing.assert_close(found.value, by_pot(p, q, ground), rtol=rtol, atol=1e-12)
    assert_certified(found)


@pytest.mark.parametrize("kind", ["random", "smooth"])
def test_agrees_with_pot_at_28x28(kind) -> None:
    p, q = some_maps(kind, 3, 28, 28), some_maps("smooth", 3, 28, 28)
    found = emd(p, q)
    torch.testing.assert_close(found.value, by_pot(p, q), rtol=1e-9, atol=0)
    assert_certified(found)


def test_supports_at_the_resolution_of_the_input() -> None:
    p, q = (some_maps("random", 3, 112, 112) for _ in range(2))
    for maps in (p, q):
        maps[:, 20:32], kept = 0, maps[:, 20:32].clone()
        maps[:] = 0
        maps[:, 20:32, 30:41] = kept[:, :, 30:41]
    q = q.roll((13, 4), dims=(1, 2))
    found = emd(p, q)
    assert_certified(found)
    for which in range(3):
        a, b = p[which].flatten().numpy(), q[which].flatten().numpy()
        i, j = np.flatnonzero(a), np.flatnonzero(b)
        rows, columns = i[:, None] // 112 - j // 112, i[:, None] % 112 - j % 112
        wanted = ot.emd2(
            a[i] / a[i].sum(), b[j] / b[j].sum(), np.hypot(rows, columns) / 112, numItermax=10**8
        )
        assert found.value[which].item() == pytest.approx(wanted, rel=1e-9)


def test_nearly_equal_maps_keep_their_relative_accuracy() -> None:
    p = some_maps("random", 1, 12, 12)
    p /= p.sum()
    q = p.clone()
    q[0, 2, 3], q[0, 9, 8] = q[0, 2, 3] - 1e-9, q[0, 9, 8] + 1e-9
    found = emd(p, q)
    assert found.value.item() == pytest.approx(1e-9 * math.hypot(7, 5) / 12, rel=1e-6)


def some_arcs_were_enough(monkeypatch) -> list[int]:
    """Counts what is solved on some and on all arcs from here on."""
    counts = [0, 0]
    some, every = simplex._on_some_arcs, simplex._on_all_arcs

    def on_some(*arguments):
        counts[0] += 1
        return some(*arguments)

    def on_all(*arguments):
        counts[1] += 1
        return every(*arguments)

    monkeypatch.setattr(simplex, "_on_some_arcs", on_some)
    monkeypatch.setattr(simplex, "_on_all_arcs", on_all)
    return counts


@pytest.mark.parametrize("kind", ["random", "sparse", "smooth", "checkerboard", "near"])
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("single", [False, True])
def test_some_arcs_find_what_all_arcs_find(kind, ground, single, monkeypatch) -> None:
    p, q = some_maps(kind, 4, 9, 14), some_maps(kind, 4, 9, 14).roll(1, dims=0)
    monkeypatch.setattr(together, "LONGEST", 0)
    monkeypatch.setattr(simplex, "SMALL", 10**9)
    counts = some_arcs_were_enough(monkeypatch)
    every = emd(p, q, ground)
    assert counts[0] == 0
    monkeypatch.setattr(simplex, "SMALL", 1)
    monkeypatch.setattr(arcs, "NEAREST", 2)
    monkeypatch.setattr(simplex, "ROUNDS", 40)
    if single:  # costs in float32, in slabs, some of them computed again for each round
        monkeypatch.setattr(arcs, "FEW", 0)
        monkeypatch.setattr(arcs, "SLAB", 150)
        monkeypatch.setattr(arcs, "KEPT", 2000)
        monkeypatch.setattr(arcs, "SAMPLE", 20)
    some = emd(p, q, ground)
    assert counts[0] >= 4
    torch.testing.assert_close(some.value, every.value, rtol=1e-9, atol=0)
    assert_certified(some)
    monkeypatch.setattr(simplex, "ROUNDS", 2)  # most do not end so soon, and are solved on all arcs
    torch.testing.assert_close(emd(p, q, ground).value, every.value, rtol=1e-9, atol=0)


@pytest.mark.parametrize("far", [0.0, 1e9])
@pytest.mark.parametrize("few", [0, 10**6])
@pytest.mark.parametrize("ground", GROUNDS)
def test_no_arc_below_zero_is_overlooked(ground, few, far, monkeypatch) -> None:
    monkeypatch.setattr(arcs, "FEW", few)
    monkeypatch.setattr(arcs, "SLAB", 500)
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 100, (2, count)) + 0.5 for count in (70, 90))
    costs = between(x, y, ground)
    # Feasible up to 1e-9, or nearly so; far from costs, float32 would lose what is asked.
    u = costs.min(axis=1) + rng.choice([0, 1e-9, 0.01], 70) + far
    v = (costs - u[:, None]).min(axis=0) + rng.choice([-2, 0, 1e-9, 0.4], 90)
    reduced = costs - u[:, None] - v
    least, nearby = arcs.Field(x, y, ground).check(u, v, 0.3)
    np.testing.assert_array_equal(least < 0, reduced.min(axis=0) < 0)
    np.testing.assert_allclose(least, np.minimum(reduced.min(axis=0), 0), rtol=0, atol=1e-12 + far * 1e-15)
    near = nearby()
    found = np.zeros(costs.shape, dtype=bool)
    found[near.i, near.j] = True
    assert found[reduced < 0.3 - 1e-4].all()
    assert not found[reduced > 0.3 + 1e-4].any()
    np.testing.assert_allclose(near.prices, reduced[near.i, near.j], rtol=0, atol=1e-12 + far * 1e-15)


# Laws


@settings(deadline=None, max_examples=40)
@given(
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kind=st.sampled_from(["random", "sparse", "smooth", "single"]),
    ground=st.sampled_from(GROUNDS),
    exponent=st.integers(-300, 300),
    seed=st.integers(0, 2**31),
)
def test_laws(cells, kind, ground, exponent, seed) -> None:
    torch.manual_seed(seed)
    a, b, c = (some_maps(kind, 3, *cells) for _ in range(3))
    found = emd(a, b, ground)
    assert_certified(found)
    assert (found.value[found.method == 1] >= 0).all()
    close = {"rtol": 1e-9, "atol": 1e-13, "equal_nan": True}
    torch.testing.assert_close(emd(b, a, ground).value, found.value, **close)
    torch.testing.assert_close(emd(a * 2.0**exponent, b * 3, ground).value, found.value, **close)
    torch.testing.assert_close(emd(a.mT, b.mT, ground).value, found.value, **close)
    torch.testing.assert_close(emd(a.flip(1), b.flip(1), ground).value, found.value, **close)
    detour = emd(a, c, ground).value + emd(c, b, ground).value
    assert not (found.value > detour * (1 + 1e-9) + 1e-13).any()
    bound = emd_lower_bound(a, b, ground)
    assert not (bound > found.value * (1 + 1e-9) + 1e-13).any()
    assert torch.equal(bound.isnan(), found.value.isnan())
    if ground == "l1":
        assert not (emd(a, b).value > found.value * (1 + 1e-9) + 1e-13).any()


def test_moving_both_maps_together_costs_nothing() -> None:
    p, q = torch.zeros(2, 2, 16, 16, dtype=torch.float64)
    p[:, 2:9, 3:9], q[:, 2:9, 3:9] = torch.rand(2, 7, 6), torch.rand(2, 7, 6)
    moved = emd(p.roll((4, 6), dims=(1, 2)), q.roll((4, 6), dims=(1, 2)))
    torch.testing.assert_close(moved.value, emd(p, q).value, rtol=1e-12, atol=0)


def test_the_bound_of_maps_in_one_row_is_their_distance() -> None:
    p, q = some_maps("random", 4, 1, 30), some_maps("sparse", 4, 1, 30)
    torch.testing.assert_close(emd_lower_bound(p, q), emd(p, q).value, rtol=1e-12, atol=0)


# Batch equals loop, threads equal one


def test_batch_equals_loop_to_the_bit(threads) -> None:
    p, q = some_maps("smooth", 12, 16, 18).float(), some_maps("sparse", 12, 16, 18).float()
    pairs = torch.stack([torch.randint(12, (20,)), torch.randint(12, (20,))], dim=1)
    batch = emd_pairs(p, q, pairs)
    for which, (i, j) in enumerate(pairs.tolist()):
        alone = emd(p[i : i + 1], q[j : j + 1])
        assert all(torch.equal(getattr(alone, name)[0], getattr(batch, name)[which]) for name in FIELDS)
    assert same(emd(p[pairs[:, 0]], q[pairs[:, 1]]), batch)
    matrix = emd_matrix(p, q)
    assert all(
        torch.equal(getattr(matrix, name)[pairs[:, 0], pairs[:, 1]], getattr(batch, name)) for name in FIELDS
    )


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("rounds", [8, 2])
def test_pairs_solved_together_are_those_solved_alone(ground, rounds, monkeypatch) -> None:
    p, q = (torch.zeros(19, 60, 70, dtype=torch.float64) for _ in range(2))
    for maps, left in ((p, 8), (q, 24)):
        for which in range(19):  # of different sizes
            side = 9 + which % 4
            maps[which, 30 : 30 + side, left : left + side] = torch.rand(side, side)
    maps = p.clone()
    monkeypatch.setattr(simplex, "ROUNDS", rounds)  # most that do not end are then solved alone
    found = emd(p, q, ground)
    sizes = []
    some = simplex._on_some_arcs
    monkeypatch.setattr(simplex, "_on_some_arcs", lambda *args: sizes.append(1) or some(*args))
    single = [emd(p[which : which + 1], q[which : which + 1], ground) for which in range(19)]
    assert all(
        same(
            one,
            EmdResult(
                *(getattr(found, name)[which : which + 1] for name in ("value", "lower", "upper", "method"))
            ),
        )
        for which, one in enumerate(single)
    )
    monkeypatch.setattr(together, "LONGEST", 0)
    alone = emd(p, q, ground)
    assert sizes
    torch.testing.assert_close(found.value, alone.value, rtol=1e-9, atol=0)
    assert_certified(found)
    assert torch.equal(maps, p)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    p, q = some_maps("smooth", 14, 20, 20), some_maps("random", 14, 20, 20)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(emd(p, q))
    torch.set_num_threads(before)
    assert same(found[0], found[1])
    assert same(found[0], found[2])


def test_a_matrix_of_one_batch_is_symmetric_to_the_bit() -> None:
    maps = some_maps("sparse", 5, 10, 10)
    maps[3] = 0
    found = emd_matrix(maps)
    assert found.value.shape == found.method.shape == (5, 5)
    for name in FIELDS:
        values = getattr(found, name).double().nan_to_num(-1)
        assert torch.equal(values, values.T)
    assert same(emd_matrix(maps, maps), found)
    torch.testing.assert_close(
        emd_matrix(maps, maps.clone()).value, found.value, rtol=1e-9, atol=1e-15, equal_nan=True
    )
    assert found.value.diagonal().nan_to_num(7).tolist() == [0, 0, 0, 7, 0]


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided", "expanded"])
def test_dtypes_and_layouts(layout, dtype) -> None:
    p, q = (some_maps("random", 4, 6, 10).to(dtype) for _ in range(2))
    wanted = emd(p.double(), q.double())
    if layout == "transposed":
        p = p.mT.contiguous().mT
    elif layout == "strided":
        p = torch.stack([p, p], dim=3)[..., 0]
    elif layout == "expanded":
        p = p[:1].expand(4, 6, 10)
        wanted = emd(p.double(), q.double())
    found = emd(p, q)
    assert same(found, wanted)
    torch.testing.assert_close(found.value, by_pot(p, q), rtol=1e-9, atol=0)


def test_the_result_carries_no_gradient_and_arguments_stay_as_they_are() -> None:
    p = torch.rand(2, 3, 3, requires_grad=True)
    before = p.detach().clone()
    assert not emd(p, p.flip(0)).value.requires_grad
    assert not emd_lower_bound(p, p).requires_grad
    assert torch.equal(p, before)


# Maps without shares


def test_maps_without_shares_are_nan(dtype) -> None:
    good = torch.rand(1, 4, 5).to(dtype)
    bad = good.repeat(5, 1, 1)
    bad[0] = 0
    bad[1, 2, 2] = torch.nan
    bad[2, 0, 0] = torch.inf
    bad[3, 1, 1] = -1e-3
    bad[4] = -1
    for found in (emd_matrix(bad, good), emd_matrix(good, bad), emd_matrix(bad)):
        for name in FIELDS[:3]:
            assert getattr(found, name).isnan().all()
        assert not found.method.any()
        assert set(found.methods) == {METHODS[0]} == {"none"}
    assert emd_lower_bound(bad, good.expand(5, 4, 5)).isnan().all()
    mixed = emd(torch.cat([bad[:1], good]), torch.cat([good, good.flip(1)]))
    assert mixed.methods == ["none", "exact"]
    assert mixed.value[1] > 0


def test_large_and_small_numbers_neither_overflow_nor_underflow() -> None:
    p, q = some_maps("random", 2, 5, 5), some_maps("random", 2, 5, 5)
    wanted = emd(p, q).value
    torch.testing.assert_close(emd(p * 1e308, q * 1e-300).value, wanted, rtol=1e-9, atol=0)
    torch.testing.assert_close(emd_lower_bound(p * 1e308, q), emd_lower_bound(p, q))


def test_empty_batches() -> None:
    none, some = torch.ones(0, 3, 4), torch.ones(2, 3, 4)
    for found, shape in (
        (emd(none, none), (0,)),
        (emd_pairs(some, none, torch.empty(0, 2, dtype=torch.int64)), (0,)),
        (emd_matrix(none), (0, 0)),
        (emd_matrix(none, some), (0, 2)),
        (emd_matrix(some, none), (2, 0)),
    ):
        assert all(getattr(found, name).shape == shape for name in FIELDS)
    assert emd_lower_bound(none, none).shape == (0,)


# Failures of the solver


def test_a_result_code_that_is_not_optimal_raises(monkeypatch) -> None:
    p, q = some_maps("random", 1, 5, 5), some_maps("random", 1, 5, 5)
    monkeypatch.setattr(simplex, "PIVOTS", 1)
    for small in (1, 10**9):
        monkeypatch.setattr(simplex, "SMALL", small)
        with pytest.raises(RuntimeError, match=r"^the network simplex failed: 1 pivots were not enough$"):
            emd(p, q)


def test_a_plan_that_is_not_optimal_raises(monkeypatch) -> None:
    p, q = some_maps("random", 1, 5, 5), some_maps("random", 1, 5, 5)
    every = simplex._on_all_arcs
    monkeypatch.setattr(simplex, "_on_all_arcs", lambda *arguments: every(*arguments)._replace(cost=9.0))
    with pytest.raises(
        RuntimeError, match=r"^the network simplex left a gap for \d+ sources and \d+ targets"
    ):
        emd(p, q)
    monkeypatch.setattr(
        simplex, "_on_all_arcs", lambda *arguments: every(*arguments)._replace(lower=math.nan)
    )
    with pytest.raises(RuntimeError, match=r"^the network simplex left a gap"):
        emd(p, q)


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch) -> None:
    maps = some_maps("random", 9, 5, 5)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(simplex, "PIVOTS", 1)
    with pytest.raises(RuntimeError, match="pivots were not enough"):
        emd_matrix(maps)
    torch.set_num_threads(before)


# Brackets, with another's function in place of the iterations


def bracketing(width: float):
    def sinkhorn_bracket(p: Tensor, q: Tensor, ground: str, tolerance: float, absolute: float):
        torch.testing.assert_close(p.sum(dim=(1, 2)), torch.ones(len(p), dtype=p.dtype, device=p.device))
        middle = emd(p.cpu(), q.cpu(), ground, "exact").value
        wide = torch.where(torch.arange(len(p)) % 2 == 0, 0.5, 2.0) * width
        return types.SimpleNamespace(lower=middle * (1 - wide / 2), upper=middle * (1 + wide / 2))

    return types.SimpleNamespace(sinkhorn_bracket=sinkhorn_bracket)


def test_brackets_that_are_too_wide_are_solved(monkeypatch) -> None:
    p, q = some_maps("random", 6, 8, 8), some_maps("sparse", 6, 8, 8)
    p[1] = 0
    exact = emd(p, q)
    monkeypatch.setitem(sys.modules, "leamfast_kernels.emd.sinkhorn", bracketing(0.05))
    monkeypatch.setattr(distance, "BRACKETED", 2)
    monkeypatch.setattr(distance, "_on_gpu", lambda maps: True)
    found = emd(p, q, tolerance=0.05)
    assert found.methods == ["bracket", "none", "exact", "bracket", "exact", "bracket"]
    for which, name in enumerate(found.methods):
        if name == "exact":
            assert found.value[which] == exact.value[which]
        if name == "bracket":
            assert found.lower[which] < exact.value[which] < found.upper[which]
            assert found.value[which] == (found.lower[which] + found.upper[which]) / 2
    assert same(emd(p, q, method="exact"), exact)


# Bad input

GOOD = torch.ones(2, 3, 4)
PAIRS = torch.zeros(5, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("p", "q", "error", "message"),
    [
        (GOOD.numpy(), GOOD, TypeError, r"^p must be a torch.Tensor, got ndarray$"),
        (GOOD, [1], TypeError, r"^q must be a torch.Tensor, got list$"),
        (GOOD.int(), GOOD, TypeError, r"^p must be float32, .* got torch.int32$"),
        (GOOD[0], GOOD, ValueError, r"^p must have shape \(N, h, w\) with h, w > 0, got \(3, 4\)$"),
        (GOOD, GOOD.mT, ValueError, r"^q must have maps of \(3, 4\) cells as p has, got \(4, 3\)$"),
        (GOOD, GOOD.half(), ValueError, r"^q must have the dtype of p, torch.float32, got torch.float16$"),
        (GOOD, GOOD.to("meta"), ValueError, r"^q must be on the device of p, cpu, got meta$"),
    ],
)
def test_bad_maps(p, q, error, message) -> None:
    for function in (emd, emd_matrix, emd_lower_bound, lambda p, q: emd_pairs(p, q, PAIRS)):
        with pytest.raises(error, match=message):
            function(p, q)


@pytest.mark.parametrize("function", [emd, emd_lower_bound])
def test_batches_of_different_lengths(function) -> None:
    with pytest.raises(ValueError, match=r"^q must have as many maps as p, 2, got 3$"):
        function(GOOD, torch.ones(3, 3, 4))


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        ([(0, 0)], TypeError, r"^pairs must be an int64 tensor, got list$"),
        (PAIRS.int(), TypeError, r"^pairs must be an int64 tensor, got torch.int32$"),
        (PAIRS.T, ValueError, r"^pairs must have shape \(K, 2\), .*, got \(2, 5\)$"),
        (PAIRS - 1, ValueError, r"^pairs must hold rows of p from 0 to 1, got -1$"),
        (PAIRS + torch.tensor([0, 3]), ValueError, r"^pairs must hold rows of q from 0 to 2, got 3$"),
    ],
)
def test_bad_pairs(pairs, error, message) -> None:
    with pytest.raises(error, match=message):
        emd_pairs(GOOD, torch.ones(3, 3, 4), pairs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"ground": "sqeuclidean"},
            ValueError,
            r"^ground must be .*'sqeuclidean': the mass .* exact for metrics only",
        ),
        ({"ground": 2}, TypeError, r"^ground must be a str, 'euclidean' or 'l1', got int$"),
        ({"method": "sinkhorn"}, ValueError, r"^method must be 'auto' or 'exact', got 'sinkhorn'$"),
        ({"tolerance": 0}, ValueError, r"^tolerance must be a finite number above 0, got 0$"),
        ({"tolerance": math.nan}, ValueError, r"^tolerance must be a finite number above 0, got nan$"),
        ({"tolerance": "1%"}, TypeError, r"^tolerance must be a number above 0, got '1%'$"),
        ({"tolerance": True}, TypeError, r"^tolerance must be a number above 0, got True$"),
    ],
)
def test_bad_options(options, error, message) -> None:
    for function in (emd, emd_matrix, lambda p, q, **options: emd_pairs(p, q, PAIRS, **options)):
        with pytest.raises(error, match=message):
            function(GOOD, GOOD, **options)
    if "ground" in options:
        with pytest.raises(error, match=message):
            emd_lower_bound(GOOD, GOOD, **options)


# The package


def test_importing_imports_no_solver_and_needs_none_for_nothing() -> None:
    code = (
        "import sys, torch, leamfast_kernels as k; k.emd(torch.ones(0, 2, 2), torch.ones(0, 2, 2));"
        "k.emd_lower_bound(torch.ones(1, 2, 2), torch.ones(1, 2, 2));"
        "assert not {'ot', 'scipy'} & set(sys.modules)"
    )
    folder = Path(simplex.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_old_solver_is_named(monkeypatch) -> None:
    simplex.solvers.cache_clear()
    monkeypatch.setitem(sys.modules, "ot.lp.emd_wrap", types.ModuleType("ot.lp.emd_wrap"))
    with pytest.raises(ImportError, match=r"^emd needs POT 0.9.7 or newer: pip install 'pot>=0.9.7'$"):
        emd(GOOD, GOOD)


def test_the_function_emd_does_not_hide_the_package_emd() -> None:
    code = (
        "import leamfast_kernels.emd.sinkhorn\n"
        "from leamfast_kernels.emd import emd_pairs, sinkhorn\n"
        "from leamfast_kernels.emd.sinkhorn import sinkhorn_bracket\n"
        "from leamfast_kernels import emd\n"
        "import leamfast_kernels, sys\n"
        "assert emd is leamfast_kernels.emd is sys.modules['leamfast_kernels.emd'].emd\n"
        "assert sinkhorn is sys.modules['leamfast_kernels.emd.sinkhorn']\n"
        "assert sinkhorn.sinkhorn_bracket is sinkhorn_bracket and leamfast_kernels.emd_pairs is emd_pairs\n"
    )
    folder = Path(simplex.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name) -> None:
    module = importlib.import_module(f"leamfast_kernels.emd.{name}")
    assert doctest.testmod(module).failed == 0

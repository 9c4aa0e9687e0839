"""Brackets of distances hold the exact distance, whatever the maps, and are narrow where they can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from leamfast_kernels.emd import sinkhorn
from leamfast_kernels.emd.rounding import (
    DIAMETERS,
    blocks,
    certificates,
    excess_of,
    margin,
    sides_of,
)
from leamfast_kernels.emd.sinkhorn import sinkhorn_bracket, sinkhorn_reference

ot = pytest.importorskip("ot", reason="the exact distance is POT's")

GROUNDS = list(DIAMETERS)
KINDS = ["random", "sparse", "smooth", "checkerboard", "pixel", "near", "one moved"]
SOLVER = 1e-11  # what the exact solver's own float64 may be off by


def map_pairs(kind: str, count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pairs of maps (N, h, w) of a kind, float64."""
    shape = (2, count, height, width)
    p, q = torch.rand(shape, dtype=torch.float64)
    if kind == "sparse":
        p, q = (torch.relu(maps**4 - 0.2) for maps in (p, q))
        p[:, 0, 0], q[:, -1, 0] = 1.0, 0.5
    elif kind == "smooth":
        p, q = _blobs(count, height, width), _blobs(count, height, width)
    elif kind == "checkerboard":
        board = (torch.arange(height)[:, None] + torch.arange(width)) % 2
        p, q = p * board, q * (1 - board)
    elif kind == "pixel":
        p, q = torch.zeros(shape, dtype=torch.float64)
        for maps in (p, q):
            maps.flatten(1)[torch.arange(count), torch.randint(height * width, (count,))] = 3.0
    elif kind == "near":
        q = p * (1 + 1e-9 * q)
    elif kind == "one moved":
        q = p.clone()
        q[:, 0, 0] += 1e-3
    return p, q


def _blobs(count: int, height: int, width: int) -> Tensor:
    y, x = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    centres = torch.rand(count, 3, 2, 1, 1, dtype=torch.float64)
    spread = (1 + torch.rand(count, 3, 1, 1, dtype=torch.float64)) * max(height, width) / 8
    down = y[:, None] - centres[:, :, 0] * height
    right = x - centres[:, :, 1] * width
    return torch.exp(-(down**2 + right**2) / (2 * spread**2)).sum(dim=1)


def exact(p: Tensor, q: Tensor, ground: str) -> Tensor:
    """Distances of pairs, without any mass removed."""
    height, width = p.shape[1:]
    rows, columns = np.indices((height, width))
    centres = np.stack([(rows.ravel() + 0.5) / height, (columns.ravel() + 0.5) / width], axis=1)
    cost = ot.dist(centres, metric="euclidean" if ground == "euclidean" else "cityblock")
    shares = [(maps / maps.sum(dim=(1, 2), keepdim=True)).flatten(1).numpy() for maps in (p, q)]
    return torch.tensor(
        [ot.emd2(a / a.sum(), b / b.sum(), cost, numItermax=10**7) for a, b in zip(*shares, strict=True)],
        dtype=torch.float64,
    )


def assert_held(found: sinkhorn.Bracket, wanted: Tensor) -> None:
    assert (found.lower <= wanted + SOLVER).all(), (found.lower - wanted).max()
    assert (found.upper >= wanted - SOLVER).all(), (wanted - found.upper).max()
    assert (found.lower >= 0).all()
    assert (found.lower <= found.upper).all()


def within(found: sinkhorn.Bracket, tolerance: float, absolute: float) -> Tensor:
    width = found.upper - found.lower
    return (width <= tolerance * found.upper) | (width <= absolute)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("side", [8, 10, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_brackets_hold_the_exact_distance(kind, side, ground) -> None:
    p, q = map_pairs(kind, 24, side, side)
    found = sinkhorn_bracket(p, q, ground)
    assert found.lower.dtype == found.upper.dtype == torch.float64
    assert_held(found, exact(p, q, ground))
    # Of L1 between two colours of a board there are very many best plans: the slowest pairs by far.
    least = 0.6 if (kind, ground) == ("checkerboard", "l1") else 0.9
    assert within(found, 0.01, 0.0005).double().mean() > least


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("kind", ["random", "smooth"])
def test_brackets_at_28x28(kind, ground) -> None:
    p, q = map_pairs(kind, 1, 28, 28)
    found = sinkhorn_bracket(p, q, ground)
    assert_held(found, exact(p, q, ground))
    assert within(found, 0.02, 0.0005).all()


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (4, 9)], ids=str)
def test_odd_shapes(shape, ground) -> None:
    p, q = map_pairs("random", 5, *shape)
    assert_held(sinkhorn_bracket(p, q, ground), exact(p, q, ground))


@pytest.mark.parametrize("ground", GROUNDS)
def test_a_distance_worked_by_hand(ground) -> None:
    p, q = torch.zeros(2, 1, 4, 8, dtype=torch.float64)
    p[0, 0, 0] = 2.0
    q[0, 3, 4] = 1.0
    q[0, 0, 0] = 1.0  # half of the mass stays
    found = sinkhorn_bracket(p, q, ground)
    wanted = 0.5 * (math.hypot(0.75, 0.5) if ground == "euclidean" else 1.25)
    assert found.lower.item() <= wanted <= found.upper.item()
    assert found.upper.item() - found.lower.item() < 1e-6


@pytest.mark.parametrize("ground", GROUNDS)
def test_equal_maps(ground) -> None:
    p = torch.rand(3, 6, 6)
    found = sinkhorn_bracket(p, p.clone(), ground)
    assert found.lower.tolist() == found.upper.tolist() == [0.0] * 3
    assert found.iterations.tolist() == [0] * 3
    # Equal but for their scale: shares differ in their last bits, which the margin covers.
    found = sinkhorn_bracket(p.double(), p.double() * 3, ground)
    assert found.lower.tolist() == [0.0] * 3
    assert (found.upper <= 4 * margin(36, ground)).all()


def test_what_is_no_map_is_nan() -> None:
    p, q = torch.rand(2, 6, 3, 3)
    p[0], p[1, 0, 0], p[2, 1, 1], q[3, 0, 1] = 0.0, torch.nan, -1.0, torch.inf
    q[0] = 0.0
    found = sinkhorn_bracket(p, q)
    assert found.lower.isnan().tolist() == found.upper.isnan().tolist() == [True] * 4 + [False] * 2
    assert_held(sinkhorn_bracket(p[4:], q[4:]), exact(p[4:].double(), q[4:].double(), "euclidean"))


@pytest.mark.parametrize("ground", GROUNDS)
def test_laws(ground) -> None:
    p, q = map_pairs("random", 6, 9, 9)
    found = sinkhorn_bracket(p, q, ground)
    for other in (
        sinkhorn_bracket(q, p, ground),  # symmetry
        sinkhorn_bracket(p.flip(1), q.flip(1), ground),
        sinkhorn_bracket(p.mT, q.mT, ground),
        sinkhorn_bracket(5 * p, q / 7, ground),
    ):
        assert (torch.maximum(found.lower, other.lower) <= torch.minimum(found.upper, other.upper)).all()


@pytest.mark.parametrize("ground", GROUNDS)
def test_a_batch_is_a_loop(ground) -> None:
    pairs = [map_pairs(kind, 2, 8, 6) for kind in KINDS]
    p, q = (torch.cat(maps) for maps in zip(*pairs, strict=True))
    whole = sinkhorn_bracket(p, q, ground)
    single = [sinkhorn_bracket(p[i : i + 1], q[i : i + 1], ground) for i in range(len(p))]
    lower, upper, iterations = (
        torch.cat([getattr(one, name) for one in single]) for name in ("lower", "upper", "iterations")
    )
    # Padding changes the order of sums in plain torch (a program on a GPU knows no other pair). What a hard
    # pair's over-relaxed iterations make of that is another bracket as good.
    assert (torch.maximum(whole.lower, lower) <= torch.minimum(whole.upper, upper)).all()
    alike = (whole.lower - lower).abs() + (whole.upper - upper).abs() <= 1e-4 * upper
    assert alike.double().mean() > 0.8
    assert ((whole.iterations == iterations) | ~alike).all()


def test_blocks_hold_every_pair_once(monkeypatch) -> None:
    p, q = map_pairs("sparse", 9, 7, 7)
    q[4] = p[4]
    excess = excess_of(p, q)
    parts = list(blocks(excess, "l1", torch.float64, 1000))
    assert len(parts) > 2
    assert sorted(torch.cat([part.rows for part in parts]).tolist()) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert all(part.cost.numel() <= 1000 or len(part.rows) == 1 for part in parts)
    wanted = sinkhorn_bracket(p, q, "l1")
    monkeypatch.setattr(sinkhorn, "SINKHORN_BLOCK", 1000)
    found = sinkhorn_bracket(p, q, "l1")
    torch.testing.assert_close(found.upper, wanted.upper, rtol=1e-4, atol=1e-6)


def test_float32_maps_have_the_distance_of_their_values() -> None:
    p, q = (maps.float() for maps in map_pairs("random", 6, 8, 8))
    assert_held(sinkhorn_bracket(p, q), exact(p.double(), q.double(), "euclidean"))


def test_pairs_stop_by_themselves_and_a_wider_wish_sooner() -> None:
    p, q = map_pairs("smooth", 6, 10, 10)
    p[0], q[0] = (maps[0] for maps in map_pairs("pixel", 1, 10, 10))
    loose, tight = sinkhorn_bracket(p, q, tolerance=0.1), sinkhorn_bracket(p, q, tolerance=0.004, absolute=0)
    assert loose.iterations[0] < loose.iterations.max()
    assert (loose.iterations <= tight.iterations).all()
    assert within(loose, 0.1, 0.0).all()
    assert ((tight.upper - tight.lower) <= 0.012 * tight.upper).all()


@pytest.mark.parametrize("ground", GROUNDS)
def test_a_wish_that_cannot_be_met_leaves_a_bracket_that_holds(ground) -> None:
    p, q = map_pairs("random", 4, 8, 8)
    found = sinkhorn_bracket(p, q, ground, tolerance=0, absolute=0)
    assert (found.upper > found.lower).all()
    assert found.iterations.tolist() == [found.iterations.max()] * 4
    assert_held(found, exact(p, q, ground))


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3])
def test_any_potentials_give_valid_bounds(scale, ground) -> None:
    p, q = map_pairs("random", 20, 7, 7)
    wanted = exact(p, q, ground)
    for eps in (1e-4, 0.02, 10.0):
        potentials = scale * torch.randn(20, 7, 7)
        lower, upper = certificates(excess_of(p, q), potentials, torch.full((20,), eps), ground)
        assert (lower <= wanted + SOLVER).all()
        assert (upper >= wanted - SOLVER).all()
        assert upper.isfinite().all()


def test_the_margin_covers_what_rounding_does_to_single_pixels() -> None:
    """Their distance is known, and Sinkhorn's plan is the only one: bounds are off by rounding alone."""
    p, q = map_pairs("pixel", 200, 28, 28)
    found = sinkhorn_bracket(p, q)
    places = [maps.flatten(1).argmax(dim=1) for maps in (p, q)]
    rows, columns = (abs(f(places[0]) - f(places[1])) for f in (lambda at: at // 28, lambda at: at % 28))
    wanted = torch.hypot(rows.double(), columns.double()) / 28
    assert (found.lower <= wanted).all()
    assert (found.upper >= wanted).all()
    assert (found.upper - found.lower <= 3 * margin(784, "euclidean")).all()


@pytest.mark.parametrize("ground", GROUNDS)
def test_float32_potentials_are_those_of_float64(ground) -> None:
    p, q = map_pairs("smooth", 4, 9, 9)
    excess = excess_of(p, q)
    mass = excess.clamp(min=0).sum(dim=(1, 2))
    arguments = (excess / mass[:, None, None], mass, ground, 0.02, 0.0)
    single, double = (sinkhorn_reference(*arguments, dtype) for dtype in (torch.float32, torch.float64))
    assert torch.equal(single[2], double[2])
    torch.testing.assert_close(single[0], double[0], rtol=0, atol=1e-4)


def test_sides_are_ordered() -> None:
    sides = sides_of(torch.tensor([[[0.0, -1.0, 2.0], [3.0, 0.0, -4.0]]]))
    assert sides.order.tolist() == [[2, 3, 1, 5, 0, 4]]
    assert (sides.sources.tolist(), sides.sinks.tolist()) == ([2], [2])


def test_an_empty_batch() -> None:
    found = sinkhorn_bracket(torch.rand(0, 4, 4), torch.rand(0, 4, 4))
    assert found.lower.shape == found.upper.shape == found.iterations.shape == (0,)


def test_the_operator_passes_the_checks_of_the_registry() -> None:
    p, q = map_pairs("random", 3, 5, 4)
    excess = excess_of(p, q)
    mass = excess.clamp(min=0).sum(dim=(1, 2))
    arguments = (excess / mass[:, None, None], mass, "euclidean", 0.01, 0.0005)
    torch.library.opcheck(torch.ops.leamfast.sinkhorn.default, arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"p": torch.ones(1, 2, 2, dtype=torch.int64)}, TypeError, "p must be a float32 or float64 tensor"),
        ({"q": [1.0]}, TypeError, "q must be a float32 or float64 tensor, got list"),
        ({"p": torch.ones(2, 2), "q": torch.ones(2, 2)}, ValueError, r"p must have shape \(N, h, w\)"),
        ({"q": torch.ones(1, 2, 3)}, ValueError, "q must have the shape of p"),
        ({"q": torch.ones(1, 2, 2).double()}, ValueError, "q must have the dtype of p"),
        ({"ground": "sqeuclidean"}, ValueError, "ground must be"),
        ({"tolerance": -1.0}, ValueError, "tolerance must be a finite number"),
        ({"absolute": math.nan}, ValueError, "absolute must be a finite number"),
    ],
)
def test_wrong_arguments(change, error, message) -> None:
    arguments = {"p": torch.ones(1, 2, 2), "q": torch.ones(1, 2, 2)} | change
    with pytest.raises(error, match=message):
        sinkhorn_bracket(**arguments)

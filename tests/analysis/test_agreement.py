"""How well maps of one person agree, beside those of two people."""

import itertools

import numpy as np
import pytest

from leamfast.analysis import agreement
from leamfast.analysis.agreement import agreement_rows
from leamfast.analysis.bootstrap import DRAWS, Resampling
from leamfast.store.results import open_results
from leamfast_kernels import bhattacharyya


def rows_of(root):
    with open_results(root) as results:
        rows = list(agreement_rows(results, Resampling(results.identities)))
    assert [(row.model, row.map, row.measure, row.kind) for row in rows] == [
        ("m", "a", "bc", "C"), ("m", "a", "bc", "D")
    ]  # fmt: skip
    return rows


def coefficient(a, b):
    import torch

    pair = (torch.from_numpy(m.astype(np.float16).astype(np.float64))[None] for m in (a, b))
    return float(bhattacharyya(*(m / m.sum() for m in pair)))


def some_maps(rows, cells=5, seed=0):
    maps = np.random.default_rng(seed).random((rows, cells, cells + 1)) ** 4
    return maps / maps.max(axis=(1, 2), keepdims=True)


def test_numbers_by_hand(run):
    maps = np.zeros((4, 2, 2))
    maps[0, 0] = 1, 0
    maps[1, 0] = 1, 1  # BC with the first: sqrt(1/2)
    maps[2, 1] = 1, 0
    maps[3, 1] = 1, 0  # equal; BC with those of the other person: 0
    same, different = rows_of(run([0, 0, 1, 1], maps))
    assert (same.mean, same.n) == (pytest.approx((np.sqrt(0.5) + 1) / 2), 2)
    assert (same.low, same.high) == (pytest.approx(np.sqrt(0.5)), pytest.approx(1))
    assert (different.mean, different.n) == (pytest.approx(0), 4)
    assert np.isnan(different.low)  # two people make one pair of people


@pytest.mark.parametrize("block", [1, 500, 32_000_000])  # one map at a time, two, all
def test_as_pair_by_pair(run, monkeypatch, block):
    monkeypatch.setattr(agreement, "BLOCK_BYTES", block)
    people = [2, 0, 0, 1, 3, 2, 0, 1, 1, 0, 0, 4]
    maps = some_maps(12)
    maps[3] = np.nan  # without a map
    maps[6] = 0
    duplicates = [-1, -1, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1]
    used = [i for i in range(12) if i not in (2, 3, 6)]
    pairs = {(i, j): coefficient(maps[i], maps[j]) for i, j in itertools.combinations(used, 2)}
    root = run(people, maps, duplicates=duplicates)
    with open_results(root) as results:
        resampling = Resampling(results.identities)
    weights = resampling.draw(np.eye(5))
    for row, is_same in zip(rows_of(root), (True, False), strict=True):
        own = {(i, j): bc for (i, j), bc in pairs.items() if (people[i] == people[j]) == is_same}
        assert row.n == len(own)
        assert row.mean == pytest.approx(np.mean(list(own.values())))
        times = np.array(
            [
                weights[:, people[i]] if is_same else weights[:, people[i]] * weights[:, people[j]]
                for i, j in own
            ]
        )
        counts = times.sum(axis=0)
        assert counts.shape == (DRAWS,)
        draws = (np.array(list(own.values())) @ times)[counts > 0] / counts[counts > 0]
        assert (row.low, row.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))


def test_equal_maps_have_1(run):
    maps = np.repeat(some_maps(3), 3, axis=0)
    same, different = rows_of(run(np.repeat(range(3), 3).tolist(), maps))
    assert (same.mean, same.low, same.high) == pytest.approx((1, 1, 1), abs=1e-12)
    assert different.mean < 0.95


def test_runs_without_the_array_of_near_duplicates_count_every_pair(run):
    maps = some_maps(4)
    assert [row.n for row in rows_of(run([0, 0, 0, 1], maps))] == [3, 3]
    assert [row.n for row in rows_of(run([0, 0, 0, 1], maps, duplicates=[-1, 0, -1, -1]))] == [1, 2]


def test_one_identity_has_no_pair_of_people_and_no_interval(run):
    same, different = rows_of(run([0, 0], some_maps(2)))
    assert same.n == 1
    assert same.mean > 0
    assert np.isnan([same.low, same.high, different.mean, different.low, different.high]).all()
    assert different.n == 0


def test_single_images_make_no_pair_of_one_person(run):
    same, different = rows_of(run([0, 1, 2], some_maps(3)))
    assert (same.n, different.n) == (0, 3)
    assert np.isnan([same.mean, same.low, same.high]).all()
    assert different.low <= different.mean <= different.high

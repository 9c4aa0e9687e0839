"""Means, intervals and tests of pairs of maps: by hand, against brute force, and on simulated data."""

import itertools

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from leamfast.analysis import pair_draws
from leamfast.analysis.bootstrap import DRAWS, Resampling
from leamfast.analysis.pair_draws import PairDraws
from leamfast.analysis.permutation import permutation_p
from leamfast.analysis.statistics import (
    PairValues,
    auc,
    cohens_d,
    contrast,
    mean_interval_of_pairs,
    pair_means,
)


def all_pairs(identities):
    """Rows of all pairs, and which are of one identity."""
    i, j = np.array(list(itertools.combinations(range(len(identities)), 2))).T
    return i, j, identities[i] == identities[j]


def two_sides(values, identities, i, j, same):
    return tuple(PairValues(values[k, None], identities[i[k]], identities[j[k]]) for k in (same, ~same))


def simulated(rng, people, images=4, shift=0.0, of_person=1.0):
    """Values of all pairs, with effects of identity, image and pair."""
    identities = np.repeat(np.arange(people), images)
    i, j, same = all_pairs(identities)
    person, image = rng.normal(0, of_person, people), rng.normal(0, 0.5, len(identities))
    values = (person[identities[i]] + person[identities[j]] + image[i] + image[j]) / 2
    return values + rng.normal(0, 0.5, len(i)) + shift * same, identities, i, j, same


def brute_force(values, first, second, seed=0):
    """Means of draws, pair by pair and draw by draw."""
    resampling = Resampling(np.concatenate([first, second]), seed)
    weights = resampling.draw(np.eye(len(resampling.people)))
    means = []
    for draw in weights:
        by = dict(zip(resampling.people, draw, strict=True))
        times = [by[a] if a == b else by[a] * by[b] for a, b in zip(first, second, strict=True)]
        means.append(np.dot(times, values) / sum(times) if sum(times) else np.nan)
    return np.array(means)


def test_numbers_by_hand():
    got = mean_interval_of_pairs(np.array([[1.0], [2], [6]]), np.array([4, 4, 7]), np.array([4, 4, 7]))
    assert (got.mean[0], got.n[0], got.people[0]) == (3, 3, 2)
    assert got.sd[0] == pytest.approx(np.sqrt(7))  # (4 + 1 + 9) / 2
    assert got.cv[0] == pytest.approx(np.sqrt(7) / 3)
    assert (got.low[0], got.high[0]) == pytest.approx((1.5, 6))  # one identity twice, or the other


def test_effect_sizes_by_hand():
    same, different = np.array([3.0, 5, np.nan]), np.array([1.0, 3])
    assert auc(same, different) == 0.875  # 1, a half, 1 and 1
    assert cohens_d(same, different) == pytest.approx(2 / np.sqrt(2))


@pytest.mark.parametrize("cells", [1, 3, 128])
@pytest.mark.parametrize("crossed", [False, True])
def test_draws_are_those_of_brute_force(monkeypatch, cells, crossed):
    monkeypatch.setattr(pair_draws, "CELLS", cells)
    rng = np.random.default_rng(1)
    first = rng.integers(0, 5, 30) * 3
    second = (first + 3 * rng.integers(1, 5, 30)) % 15 if crossed else first
    values = rng.random((30, 3))
    values[[2, 5], 1] = np.nan
    draws = PairDraws(Resampling(np.concatenate([first, second]))).means(values, first, second)
    assert draws.shape == (DRAWS, 3)
    for c in range(3):
        there = np.isfinite(values[:, c])
        wanted = brute_force(values[there, c], first[there], second[there])
        np.testing.assert_allclose(draws[:, c], wanted, rtol=1e-12)
    got = mean_interval_of_pairs(values, first, second)
    assert (got.low[0], got.high[0]) == pytest.approx(
        tuple(np.nanquantile(brute_force(values[:, 0], first, second), [0.025, 0.975]))
    )
    assert got.n.tolist() == [30, 28, 30]


def test_products_of_weights_do_not_wrap_round():
    """Two people among fifty who come 30 and 20 times: a byte does not hold the product."""

    class Heavy:
        people = np.arange(3)

        def draw(self, sums, block):
            return np.tile(np.array([30.0, 20.0, 0.0])[block], (DRAWS, 1))

    values, first, second = np.array([[1.0], [4.0]]), np.array([0, 0]), np.array([1, 0])
    # 600 times 1 and 30 times 4
    assert PairDraws(Heavy()).means(values, first, second) == pytest.approx(np.full((DRAWS, 1), 720 / 630))


def test_order_of_pairs_and_of_sides_does_not_matter():
    values, identities, i, j, same = simulated(np.random.default_rng(2), 6)
    draws = PairDraws(Resampling(identities))
    _, there = two_sides(values, identities, i, j, same)
    order = np.random.default_rng(0).permutation(len(there.values))
    back = PairValues(there.values[order], there.second[order], there.first[order])
    one, two = pair_means(draws, there), pair_means(draws, back)
    for name in ("mean", "low", "high", "sd", "n", "people"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-12)


def test_equal_values_have_an_interval_without_width():
    people = np.arange(5)
    got = mean_interval_of_pairs(np.ones((5, 1)), people, people)
    assert (got.mean[0], got.low[0], got.high[0], got.sd[0]) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("first", "second", "usable"),
    [
        ([1, 1], [1, 1], False),  # one identity
        ([1, 2], [1, 2], True),
        ([1, 1], [2, 2], False),  # two make one pair of identities
        ([1, 1], [2, 3], True),
    ],
)
def test_intervals_need_people(first, second, usable):
    got = mean_interval_of_pairs(np.array([[1.0], [2.0]]), np.array(first), np.array(second))
    assert got.mean[0] == 1.5
    assert np.isfinite([got.low[0], got.high[0]]).all() == usable


def test_a_single_pair_and_none():
    got = mean_interval_of_pairs(np.array([[2.0, np.nan]]), np.array([0]), np.array([0]))
    assert got.mean[0] == 2
    assert np.isnan([got.sd[0], got.cv[0], got.low[0], got.high[0], got.mean[1]]).all()
    assert got.n.tolist() == got.people.tolist() == [1, 0]
    assert np.isnan([auc(np.array([]), np.array([1.0])), auc(np.array([1.0]), np.array([np.nan]))]).all()
    assert np.isnan(cohens_d(np.array([1.0]), np.array([2.0])))


def test_identities_that_are_not_drawn_raise():
    draws = PairDraws(Resampling(np.array([1, 2])))
    with pytest.raises(ValueError, match="must be among"):
        draws.means(np.ones((1, 1)), np.array([3]), np.array([3]))


def test_auc_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    for size in (5, 200):
        same, different = rng.integers(0, 9, size) + 1.0, rng.integers(0, 9, 2 * size) * 1.0  # with ties
        labels = np.repeat([1, 0], [size, 2 * size])
        assert auc(same, different) == pytest.approx(roc_auc_score(labels, np.concatenate([same, different])))
        u = mannwhitneyu(same, different).statistic
        assert auc(same, different) == pytest.approx(u / (2 * size**2))
        assert auc(different, same) == pytest.approx(1 - auc(same, different))


def test_contrast_beside_brute_force():
    values, identities, i, j, same = simulated(np.random.default_rng(4), 12, shift=0.5)
    mine, theirs = two_sides(values, identities, i, j, same)
    got = contrast(PairDraws(Resampling(identities)), mine, theirs)
    draws = brute_force(mine.values[:, 0], mine.first, mine.second)
    draws -= brute_force(theirs.values[:, 0], theirs.first, theirs.second)
    assert got.difference[0] == pytest.approx(mine.values.mean() - theirs.values.mean())
    assert (got.low[0], got.high[0]) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert got.auc[0] == pytest.approx(auc(mine.values[:, 0], theirs.values[:, 0]))
    assert got.d[0] == pytest.approx(cohens_d(mine.values[:, 0], theirs.values[:, 0]))
    # The AUC of weighted pairs, draw by draw: the interval is the same to first order.
    weights = Resampling(identities).draw(np.eye(12))[:400]
    above = (mine.values > theirs.values.T) + 0.5 * (mine.values == theirs.values.T)
    areas = []
    for w in weights:
        a, b = w[mine.first], w[theirs.first] * w[theirs.second]
        areas.append(a @ above @ b / (a.sum() * b.sum()))
    low, high = np.quantile(areas, [0.025, 0.975])
    assert (got.auc_low[0], got.auc_high[0]) == pytest.approx((low, high), abs=0.03)


def test_people_that_come_apart_wholly():
    identities = np.repeat(np.arange(5), 2)
    i, j, same = all_pairs(identities)
    mine, theirs = two_sides(same + 0.01 * i, identities, i, j, same)
    got = contrast(PairDraws(Resampling(identities)), mine, theirs)
    assert (got.auc[0], got.auc_low[0], got.auc_high[0]) == (1, 1, 1)
    assert got.d[0] > 5
    assert permutation_p((same * 1.0)[:, None], i, j, identities)[0] == pytest.approx(0.001, abs=0.002)


def test_intervals_cover_as_often_as_they_should():
    rng, runs = np.random.default_rng(5), 150
    covered = np.zeros(3)
    for seed in range(runs):
        values, identities, i, j, same = simulated(rng, 30, images=3, shift=0.4)
        mine, theirs = two_sides(values, identities, i, j, same)
        draws = PairDraws(Resampling(identities, seed))
        c, d, against = pair_means(draws, mine), pair_means(draws, theirs), contrast(draws, mine, theirs)
        covered += [
            c.low[0] <= 0.4 <= c.high[0],
            d.low[0] <= 0 <= d.high[0],
            against.low[0] <= 0.4 <= against.high[0],
        ]
    # A little under 0.95 with 30 people; three standard errors of 150 runs are 0.05.
    assert (covered / runs > 0.86).all()


def test_p_is_uniform_where_identity_means_nothing():
    rng, found = np.random.default_rng(6), []
    for seed in range(300):
        # Effects of images, and so dependent pairs; none of identity.
        values, identities, i, j, _ = simulated(rng, 5, images=3, of_person=0)
        found.append(permutation_p(values[:, None], i, j, identities, seed, permutations=99)[0])
    found = np.array(found)
    for level in (0.05, 0.25, 0.5, 0.75):
        error = np.sqrt(level * (1 - level) / len(found))
        assert np.mean(found <= level) == pytest.approx(level, abs=3.5 * error)


def test_p_of_sampled_pairs_is_not_too_small():
    rng, found = np.random.default_rng(7), []
    for seed in range(200):
        values, identities, i, j, same = simulated(rng, 8, images=3, of_person=0)
        kept = same | (rng.random(len(i)) < 0.3)
        got = permutation_p(values[kept, None], i[kept], j[kept], identities, seed, permutations=99)
        found.append(got[0])
    assert np.mean(np.array(found) <= 0.05) <= 0.08


def test_too_thin_a_sample_has_no_p():
    values, identities, i, j, same = simulated(np.random.default_rng(9), 20, images=3, shift=3)
    thin = same | (np.cumsum(~same) % 40 == 1)
    dense = same | (np.cumsum(~same) % 4 == 1)
    p = [permutation_p(values[k, None], i[k], j[k], identities, permutations=99)[0] for k in (thin, dense)]
    assert np.isnan(p[0])
    assert p[1] == 0.01


def test_values_of_the_same_images_count_as_their_mean_for_p():
    rng = np.random.default_rng(10)
    values, identities, i, j, same = simulated(rng, 6, images=3, shift=0.5)
    once = permutation_p(values[:, None], i, j, identities, permutations=99)
    # Eight values of every two images of one person, as references are drawn, one of those of two people.
    times = np.where(same, 8, 1)
    noise = rng.normal(size=times.sum())
    pair = np.repeat(np.arange(len(i)), times)
    noise -= (np.bincount(pair, noise) / times)[pair]
    swap = rng.random(len(pair)) < 0.5
    a, b = np.where(swap, j[pair], i[pair]), np.where(swap, i[pair], j[pair])
    noisy = values[pair] + np.where(np.repeat(same, times), noise, 0)
    many = permutation_p(noisy[:, None], a, b, identities, permutations=99)
    assert many == pytest.approx(once)
    assert 0 < once[0] < 1


def test_p_by_hand():
    """Three of one person and one of another: in one of four deals the three are together."""
    identities = np.array([9, 9, 9, 2])
    i, j, same = all_pairs(identities)
    values = np.stack([same, ~same, np.zeros(6)], axis=1).astype(float)
    got = permutation_p(values, i, j, identities, permutations=3999)
    assert got == pytest.approx([0.25, 1, 1], abs=0.03)


def test_p_that_cannot_be_had():
    identities = np.array([0, 0, 1, 1])
    i, j, same = all_pairs(identities)
    values = np.where(same, np.nan, 1.0)[:, None]
    assert np.isnan(permutation_p(values, i, j, identities, permutations=9))[0]
    assert np.isnan(permutation_p(np.ones((3, 1)), i[:3], j[:3], np.zeros(4, int), permutations=9))[0]
    assert permutation_p(np.ones((6, 2)), i, j, identities, permutations=9).shape == (2,)


def test_the_same_seed_gives_the_same_numbers():
    values, identities, i, j, same = simulated(np.random.default_rng(8), 6, shift=0.3)
    first, _ = two_sides(values, identities, i, j, same)
    one, two, three = (
        mean_interval_of_pairs(first.values, first.first, first.second, seed) for seed in (0, 0, 1)
    )
    assert one.low == two.low
    assert one.low != three.low
    p = [permutation_p(values[:, None], i, j, identities, seed, 99)[0] for seed in (0, 0)]
    assert p[0] == p[1]

"""Rows of similarity.csv from tables of pairs."""

import csv
import itertools
from dataclasses import replace

import numpy as np
import pytest

from leamfast.analysis.bootstrap import Resampling
from leamfast.analysis.pair_draws import PairDraws
from leamfast.analysis.permutation import permutation_p
from leamfast.analysis.similarity import SimilarityRow, similarity_rows
from leamfast.analysis.statistics import PairValues, auc, cohens_d, contrast, pair_means
from leamfast.analysis.tables import write_rows
from leamfast.store.arrays import THRESHOLDS
from leamfast.store.pair_join import read_pairs, tile_files
from leamfast.store.pairs import PairTable, Tile, write_tile

COLUMNS = "model,map,kind,threshold,prior,measure,mean,low,high,n"
IDENTITIES = np.repeat(np.arange(6), 3)
NONE = np.zeros(0, int)


def table(kind, i, j, bc, emd=None, how=None, wide=0.0, **changes):
    """A table whose columns are `bc` and `emd` times 1, 0.95, 0.9 ... in the order of threshold and prior."""
    shape = (len(i), len(THRESHOLDS), 2)
    factor = 1 - 0.05 * np.arange(12).reshape(6, 2)
    spread = lambda values: np.asarray(values, float)[:, None, None] * factor  # noqa: E731
    distance = np.full(shape, np.nan) if emd is None else spread(emd)
    if how is None:
        how = np.where(np.isnan(distance), 0, 1)
    none = np.full(len(i), -1)
    return PairTable(
        **{
            "model": "m", "tap": "a", "kind": kind, "i": np.asarray(i), "j": np.asarray(j),
            "i_ref": none, "j_ref": none, "bc": spread(bc), "emd": distance,
            "emd_lower": distance - wide, "emd_upper": distance + wide, "emd_kind": how.astype(np.uint8),
            "grid": np.full((6, 2), 28), "other_model": "n" if kind == "cross" else "",
        } | changes
    )  # fmt: skip


def c_and_d(seed=0, shift=0.2):
    rng = np.random.default_rng(seed)
    i, j = np.array(list(itertools.combinations(range(len(IDENTITIES)), 2))).T
    same = IDENTITIES[i] == IDENTITIES[j]
    bc = 0.3 + 0.4 * rng.random(len(i)) + shift * same
    return [table(kind, i[k], j[k], bc[k], 1 - bc[k]) for kind, k in (("C", same), ("D", ~same))]


def test_numbers_by_hand():
    people = np.array([0, 0, 1, 1])
    rows = list(similarity_rows([table("A", [0, 2], [0, 2], [0.4, 0.6], [0.1, 0.3], wide=0.01)], people))
    assert [(r.threshold, r.prior, r.measure) for r in rows] == [
        (t, p, m) for m in ("bc", "emd") for t in THRESHOLDS for p in ("kept", "removed")
    ]
    first = rows[0]
    assert (first.model, first.map, first.kind, first.n, first.people, first.missing) == (
        "m",
        "a",
        "A",
        2,
        2,
        0,
    )
    assert (first.mean, first.low, first.high) == pytest.approx((0.5, 0.4, 0.6))
    assert (first.sd, first.cv) == pytest.approx((np.sqrt(0.02), np.sqrt(0.02) / 0.5))
    assert rows[11].mean == pytest.approx(0.5 * 0.45)
    assert (rows[12].mean, rows[12].mean_lower, rows[12].mean_upper) == pytest.approx((0.2, 0.19, 0.21))
    # There is no D to hold it against.
    assert np.isnan([first.difference, first.auc, first.d, first.p, first.mean_lower]).all()


def test_c_is_held_against_d_of_the_same_column():
    same, different = c_and_d()
    rows = list(similarity_rows([same, different], IDENTITIES))
    draws = PairDraws(Resampling(IDENTITIES))
    assert [r.kind for r in rows] == ["C"] * 24 + ["D"] * 24
    for row in rows[:24]:
        t, p = THRESHOLDS.index(row.threshold), ("kept", "removed").index(row.prior)
        sign = 1 if row.measure == "bc" else -1
        mine, theirs = (sign * getattr(x, row.measure)[:, t, p] for x in (same, different))
        assert row.mean == pytest.approx(sign * mine.mean())
        assert row.difference == pytest.approx(mine.mean() - theirs.mean())
        assert row.auc == pytest.approx(auc(mine, theirs))
        assert row.d == pytest.approx(cohens_d(mine, theirs))
        # More alike is more alike in both measures.
        assert row.difference_low > 0.04
        assert row.p == pytest.approx(0.001)
    values = [
        PairValues(x.bc[:, :1, 0], IDENTITIES[x.i], IDENTITIES[x.j]) for x in (same, different)
    ]  # fmt: skip
    against, means = contrast(draws, *values), pair_means(draws, values[1])
    assert (rows[0].auc_low, rows[0].auc_high) == pytest.approx((against.auc_low[0], against.auc_high[0]))
    assert (rows[0].difference_low, rows[0].difference_high) == pytest.approx(
        (against.low[0], against.high[0])
    )
    assert (rows[24].low, rows[24].high) == pytest.approx((means.low[0], means.high[0]))
    p = permutation_p(
        np.concatenate([v.values for v in values]),
        np.concatenate([same.i, different.i]),
        np.concatenate([same.j, different.j]),
        IDENTITIES,
    )
    assert rows[0].p == p[0]
    assert np.isnan([rows[24].difference, rows[24].auc, rows[24].p]).all()


def test_the_order_of_tables_does_not_matter():
    tables = c_and_d()
    key = lambda row: (row.kind, row.measure, row.threshold, row.prior)  # noqa: E731
    one, two = (sorted(similarity_rows(t, IDENTITIES), key=key) for t in (tables, tables[::-1]))
    assert [repr(row) for row in one] == [repr(row) for row in two]


def test_kinds_stand_side_by_side():
    pairs = np.arange(0, 18, 3)
    tables = [
        table("A", pairs, pairs, np.full(6, 0.9)),
        table("B", pairs, pairs + 1, np.full(6, 0.8)),
        *c_and_d(),
        table("identity", [0, 1, 2], [3, 4, 5], [0.5, 0.6, 0.7]),
        table("cross", pairs, pairs, np.full(6, 0.2)),
        table("cross", pairs, pairs, np.full(6, 0.3), other_model="o"),
        table("D", [0], [5], [0.1], tap="b"),  # of another map, which D of this one says nothing of
        table("C", [0], [1], [0.1], tap="c"),
    ]
    rows = [
        r
        for r in similarity_rows(tables, IDENTITIES)
        if (r.threshold, r.prior, r.measure) == (1, "kept", "bc")
    ]
    told = [(r.map, r.kind, r.other_model) for r in rows]
    assert told == [
        ("a", "A", ""), ("a", "B", ""), ("a", "C", ""), ("a", "D", ""), ("a", "identity", ""),
        ("a", "cross", "n"), ("a", "cross", "o"), ("b", "D", ""), ("c", "C", ""),
    ]  # fmt: skip
    assert [r.map + r.kind for r in rows if np.isfinite(r.auc)] == ["aA", "aB", "aC"]
    assert [r.map + r.kind for r in rows if np.isfinite(r.p)] == ["aC"]
    assert [r.people for r in rows] == [6, 6, 6, 6, 6, 6, 6, 2, 1]
    assert rows[5].mean == pytest.approx(0.2)


def test_pairs_without_a_value_are_counted():
    one = table("C", [0, 3, 6], [1, 4, 7], [np.nan, 0.2, 0.4])
    rows = list(similarity_rows([one], IDENTITIES))
    assert {r.measure for r in rows} == {"bc"}  # nothing of EMD was computed
    assert (rows[0].n, rows[0].missing, rows[0].people) == (2, 1, 2)
    assert rows[0].mean == pytest.approx(0.3)
    bc = one.bc.copy()
    bc[:, 2, 1] = np.nan
    rows = list(similarity_rows([replace(one, bc=bc)], IDENTITIES))
    (empty,) = [r for r in rows if (r.threshold, r.prior) == (5, "removed")]
    assert (empty.n, empty.missing, empty.people) == (0, 3, 0)
    assert np.isnan([empty.mean, empty.low, empty.high, empty.sd]).all()


def test_brackets_are_counted():
    how = np.full((2, 6, 2), 1)
    how[0] = 2
    rows = list(similarity_rows([table("C", [0, 3], [1, 4], [0.1, 0.2], [0.3, 0.5], how=how)], IDENTITIES))
    assert [r.bracketed for r in rows] == [0] * 12 + [1] * 12


@pytest.mark.parametrize("kind", ["C", "D"])
def test_a_single_pair_and_an_empty_table(kind):
    (row, *_) = similarity_rows([table(kind, [0], [1 if kind == "C" else 4], [0.5])], IDENTITIES)
    assert (row.mean, row.n) == (0.5, 1)
    assert np.isnan([row.low, row.high, row.sd, row.cv]).all()
    assert list(similarity_rows([table(kind, NONE, NONE, NONE)], IDENTITIES)) == []
    assert list(similarity_rows([], IDENTITIES)) == []
    assert list(similarity_rows([], IDENTITIES[:0])) == []


def test_an_empty_d_is_no_d():
    empty = table("D", NONE, NONE, NONE)
    rows = list(similarity_rows([c_and_d()[0], empty], IDENTITIES))
    assert np.isnan([r.auc for r in rows]).all()


def test_tiles_give_the_rows_of_the_whole(tmp_path):
    whole = c_and_d()
    for one in whole:
        half = len(one) // 2
        for number, part in enumerate((slice(half), slice(half, None))):
            names = ("i", "j", "i_ref", "j_ref", "bc", "emd", "emd_lower", "emd_upper", "emd_kind")
            cut = replace(one, **{name: getattr(one, name)[part] for name in names})
            write_tile(tmp_path, cut, Tile(number, 2))
    rows = [list(similarity_rows(t, IDENTITIES)) for t in (whole, read_pairs(tile_files(tmp_path), "m", "a"))]
    assert [repr(row) for row in rows[0]] == [repr(row) for row in rows[1]]


def test_one_table_a_kind():
    with pytest.raises(ValueError, match="join tiles first"):
        list(similarity_rows([c_and_d()[0]] * 2, IDENTITIES))


def test_the_table_begins_with_the_columns_of_the_contract(tmp_path):
    path = write_rows(tmp_path, "similarity", SimilarityRow, similarity_rows(c_and_d(), IDENTITIES))
    header, *lines = path.read_text().splitlines()
    assert header.startswith(COLUMNS + ",")
    assert len(lines) == 48
    record = next(csv.DictReader([header, lines[0]]))
    assert (record["kind"], record["threshold"], record["prior"], record["measure"]) == (
        "C",
        "1",
        "kept",
        "bc",
    )
    assert float(record["low"]) <= float(record["mean"]) <= float(record["high"])

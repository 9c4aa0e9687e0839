"""Region shares as a table: numbers worked out by hand, laws, and what is missing."""

import csv
import math

import numpy as np
import pytest

from leamfast.analysis.analyze import analyze_run, write_analysis
from leamfast.analysis.bootstrap import mean_interval
from leamfast.faces.regions import REGIONS
from leamfast.store.arrays import NO_LABEL
from leamfast.store.results import open_results
from tests.analysis.conftest import FACE, planted, sharp


def rows_of(root):
    return analyze_run(root).regions


def pick(rows, region, map="a", threshold=5):
    (row,) = (r for r in rows if (r.map, r.threshold, r.region) == (map, threshold, region))
    return row


def test_numbers_of_two_people_by_hand(run):
    labels = np.array([FACE, FACE, FACE, FACE])
    labels[1, 4, 5] = REGIONS.index("nose")  # three pixels of nose where the others have two
    shares = planted(4, nose=[0.2, 0.4, 0.1, 0.1], face=[0.8, 0.6, 0.9, 0.9])
    row = pick(rows_of(run([0, 0, 1, 1], sharp(4), labels, shares)), "nose")
    assert (row.share, row.n) == (pytest.approx(0.2), 4)
    assert row.area == pytest.approx((2 + 3 + 2 + 2) / 4 / 64)
    assert row.over_representation == pytest.approx(0.2 / row.area)
    # Both people twice in a quarter of the draws each: the limits are their own means.
    assert (row.low, row.high) == (pytest.approx(0.1), pytest.approx(0.3))
    assert row.over_low == pytest.approx(0.1 / (2 / 64))
    assert row.over_high == pytest.approx(0.3 / (2.5 / 64))
    assert row.sd == pytest.approx(math.sqrt((0 + 0.04 + 0.01 + 0.01) / 3))
    assert row.cv_within == pytest.approx((math.sqrt(0.02) / 0.3 + 0) / 2, rel=1e-5)
    assert row.cv_between == pytest.approx(math.sqrt(0.02) / 0.2, rel=1e-5)


def test_as_one_image_at_a_time(run):
    rng = np.random.default_rng(0)
    people = [0, 1, 0, 2, 1, 0, 3]  # not in order; the last with one image only
    shares = rng.dirichlet(np.ones(len(REGIONS)), (7, 6)).astype(np.float32)
    shares[3] = np.nan  # no map
    shares[5, 0] = np.nan  # and none at one threshold
    labels = rng.integers(0, len(REGIONS), (7, 8, 8)).astype(np.uint8)
    labels[1] = NO_LABEL
    shares[1] = np.nan
    rows = rows_of(run(people, sharp(7), labels, shares))
    assert len(rows) == 2 * 6 * 19
    for t, percent in ((0, 1), (5, 100)):
        found = [i for i in range(7) if np.isfinite(shares[i, t]).all()]
        for region in ("hair", "nose"):
            j = REGIONS.index(region)
            row = pick(rows, region, threshold=percent)
            values = {p: [float(shares[i, t, j]) for i in found if people[i] == p] for p in range(4)}
            every = [v for own in values.values() for v in own]
            means = [np.mean(own) for own in values.values() if own]
            area = np.mean([(labels[i] == j).mean() for i in found])
            assert row.n == len(found) == len(every)
            assert row.share == pytest.approx(np.mean(every))
            assert row.area == pytest.approx(area)
            assert row.sd == pytest.approx(np.std(every, ddof=1))
            within = [np.std(v, ddof=1) / np.mean(v) for v in values.values() if len(v) > 1]
            assert row.cv_within == pytest.approx(np.mean(within) if within else np.nan, nan_ok=True)
            assert row.cv_between == pytest.approx(np.std(means, ddof=1) / np.mean(means))


def test_all_regions_sum_to_one_and_intervals_hold_the_mean(finished_run):
    rows = rows_of(finished_run)
    for key in {(row.map, row.threshold) for row in rows}:
        own = [row for row in rows if (row.map, row.threshold) == key]
        assert len(own) == 19
        assert sum(row.share for row in own) == pytest.approx(1, abs=1e-5)
        assert sum(row.area for row in own) == pytest.approx(1, abs=1e-9)
    for row in rows:
        assert row.low - 1e-9 <= row.share <= row.high + 1e-9
        if row.area == 0 or row.region == "hat":  # one person of twelve wears one
            assert math.isnan(row.over_low)
        else:
            assert row.over_low - 1e-9 <= row.over_representation <= row.over_high + 1e-9


def test_intervals_are_those_of_mean_interval(finished_run):
    with open_results(finished_run) as results:
        rows = [row for row in rows_of(finished_run) if (row.map, row.threshold) == ("fused", 100)]
        shares = results.region_share("demo", "fused")[:, 5].astype(np.float64)
        _, low, high, _ = mean_interval(shares, results.identities)
    np.testing.assert_allclose([row.low for row in rows], low, rtol=1e-12)
    np.testing.assert_allclose([row.high for row in rows], high, rtol=1e-12)


def test_equal_images_do_not_vary_within_an_identity(run):
    # Numbers whose mean over three is not the number itself, in floating point.
    shares = planted(6, nose=[0.1] * 3 + [0.7] * 3, face=[0.9] * 3 + [0.3] * 3)
    rows = rows_of(run([0, 0, 0, 1, 1, 1], sharp(6), FACE, shares))
    assert pick(rows, "nose").cv_within == 0
    assert pick(rows, "nose").cv_between > 0
    assert math.isnan(pick(rows, "hair").cv_within)  # its mean is 0
    assert math.isnan(pick(rows, "hair").cv_between)
    assert pick(rows, "hair").sd == 0


def test_one_identity_has_no_interval(run):
    shares = planted(3, nose=[0.1, 0.2, 0.3], face=0.7)
    row = pick(rows_of(run([0, 0, 0], sharp(3), FACE, shares)), "nose")
    assert row.share == pytest.approx(0.2)
    assert row.cv_within == pytest.approx(0.5)
    assert all(math.isnan(v) for v in (row.low, row.high, row.over_low, row.over_high, row.cv_between))


def test_an_interval_needs_two_people_with_maps(run):
    shares = planted(4, nose=0.1, face=0.9)
    shares[2:] = np.nan
    row = pick(rows_of(run([0, 0, 1, 1], sharp(4), FACE, shares)), "nose")
    assert row.n == 2
    assert math.isnan(row.low)


def test_a_parser_of_some_regions_leaves_the_others_out(run):
    known = ("face", "re", "le", "nose")
    labels = np.where(FACE == 0, NO_LABEL, FACE).astype(np.uint8)
    maps = np.ones((4, 8, 8))
    root = run([0, 0, 1, 1], maps, labels, known=known, parser="polygons")
    rows = rows_of(root)
    assert [row.region for row in rows if (row.map, row.threshold) == ("a", 100)] == list(known)
    face = pick(rows, "face", threshold=100)
    assert face.area == pytest.approx(18 / 64)  # of all pixels, unknown ones too
    assert face.share == pytest.approx(18 / 64)
    assert face.over_representation == pytest.approx(1)
    found = analyze_run(root)
    assert (found.masks, found.parser, found.unknown) == (
        True, "polygons", tuple(name for name in REGIONS if name not in known)
    )  # fmt: skip


def test_an_unknown_corner_is_no_missing_mask(run):
    """The mask is missing where nothing is known, not where the first pixel is unknown."""
    labels = np.array([FACE, FACE])
    labels[:, 0, 0] = NO_LABEL
    row = pick(rows_of(run([0, 1], np.ones((2, 8, 8)), labels)), "background", threshold=100)
    assert row.n == 2
    assert row.area == pytest.approx(39 / 64)


def test_without_masks_there_is_no_table(run, finished_run):
    for labels in (None, np.full((8, 8), NO_LABEL, np.uint8)):
        found = analyze_run(run([0, 0], sharp(2), labels))
        assert not found.masks
        assert found.regions == found.layers == []


def test_the_file_keeps_its_columns_in_front(finished_run, tmp_path):
    import shutil

    root = tmp_path / "run"
    shutil.copytree(finished_run, root)
    found = analyze_run(root)
    path = write_analysis(root, found)["regions"]
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [
        "model", "map", "threshold", "region", "share", "area", "over_representation", "low", "high", "n",
        "sd", "cv_within", "cv_between", "over_low", "over_high",
    ]  # fmt: skip
    assert len(rows) == len(found.regions)

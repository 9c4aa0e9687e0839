"""Fills at equal area and at equal visible change."""

import numpy as np
import pytest

from leamfast.analysis.fills import PSNR_LEVELS, SSIM_LEVELS, at_change
from leamfast.analysis.occlusion_tables import occlusion_of
from tests.analysis.occluded import axes_of, planted

PERCENTS = (1.0, 5.0, 20.0)
AXES = axes_of(percents=PERCENTS, controls=("own", "random"), fills=("black", "blur"))


def decibels(error):
    return 10 * np.log10(255**2 / np.asarray(error))


def seen(rows, black, blur):
    """What is seen at each percent, (rows, 1, 3, 2)."""
    return np.broadcast_to(np.stack([black, blur], axis=1)[None, None], (rows, 1, 3, 2)).astype(np.float32)


def linear(rows=4, references=None, **options):
    """Drops that are linear in the squared error: black 1 / 1000 of it, blur 1 / 500."""
    black, blur = np.array([200.0, 400, 900]), np.array([10.0, 50, 300])
    drop = np.empty((rows, 1, 3, 2, 2))
    drop[..., 0, :] = np.stack([black / 1000, blur / 500], axis=1)
    drop[..., 1, :] = 0.9  # of the control, which must not matter
    # 1 - SSIM is a thousandth of the squared error
    return planted(
        options.pop("identities", np.arange(rows)), options.pop("axes", AXES), drop, references,
        psnr=seen(rows, decibels(black), decibels(blur)), ssim=seen(rows, 1 - black / 1000, 1 - blur / 1000),
        **options,
    )  # fmt: skip


def rows_of(results):
    return {(row.compared_at, row.level, row.fill): row for row in occlusion_of(results).fills}


def test_at_equal_area():
    rows = rows_of(linear())
    for t, percent in enumerate(PERCENTS):
        black, blur = rows["area", percent, "black"], rows["area", percent, "blur"]
        assert (black.drop, blur.drop) == pytest.approx(([0.2, 0.4, 0.9][t], [0.02, 0.1, 0.6][t]))
        assert black.ssim == pytest.approx([0.8, 0.6, 0.1][t])
        assert blur.psnr == pytest.approx(decibels([10, 50, 300][t]))
        assert (black.n, black.people) == (4, 4)
        assert black.low == pytest.approx(black.drop) == black.high


@pytest.mark.parametrize("level", PSNR_LEVELS)
def test_at_equal_squared_error_drops_are_those_of_the_line(level):
    rows = rows_of(linear())
    error = 255**2 / 10 ** (level / 10)
    black, blur = rows["psnr", level, "black"], rows["psnr", level, "blur"]
    if error > 300:  # blur does not change the picture so much
        assert (black.n, blur.n) == (0, 0)
        assert np.isnan([black.drop, blur.drop, black.ssim]).all()
    else:
        assert (black.drop, blur.drop) == pytest.approx((error / 1000, error / 500), rel=1e-5)
        assert (black.psnr, blur.psnr) == pytest.approx((level, level), rel=1e-5)
        assert (black.ssim, blur.ssim) == pytest.approx((1 - error / 1000,) * 2, rel=1e-5)
        assert (black.n, blur.n) == (4, 4)


@pytest.mark.parametrize("level", SSIM_LEVELS)
def test_at_equal_ssim_too(level):
    rows = rows_of(linear())
    black, blur = rows["ssim", level, "black"], rows["ssim", level, "blur"]
    assert (black.drop, blur.drop) == pytest.approx((1 - level, 2 * (1 - level)), rel=1e-4)
    assert (black.ssim, blur.ssim) == pytest.approx((level, level), rel=1e-5)
    assert black.psnr == pytest.approx(decibels(1000 * (1 - level)), rel=1e-4)


def test_images_in_which_a_fill_does_not_reach_the_level_are_left_out_for_all():
    results = linear(identities=[0, 0, 1, 2], references=[1, 2, 3, 4])
    axes, arrays = results._pairs["m", "m"]
    arrays.psnr[:] = seen(4, decibels([200.0, 400, 900]), decibels([200.0, 400, 900]))
    arrays.psnr[1, :, :, 1] = 50.0  # nearly nothing is changed
    rows = rows_of(results)
    for fill in ("black", "blur"):
        assert (rows["psnr", 25.0, fill].n, rows["psnr", 25.0, fill].people) == (8, 3)
        assert (rows["area", 5.0, fill].n, rows["area", 5.0, fill].people) == (10, 3)


def test_the_first_percent_that_reaches_a_level_counts():
    """A change that goes back and comes again, and a drop that goes on rising."""
    change = np.array([1.0, 3.0, 2.0, 4.0]).reshape(1, 1, 4, 1)
    drop = np.array([0.1, 0.3, 0.5, 0.9]).reshape(1, 1, 1, 4, 1)
    found = at_change(change, drop, np.array([0.5, 2.0, 3.0, 3.5, 5.0]))[0, 0, 0, :, 0]
    assert found == pytest.approx([0.05, 0.2, 0.3, 0.8, np.nan], nan_ok=True)


def test_a_fill_that_changes_nothing_reaches_nothing():
    change = np.zeros((1, 1, 3, 1))
    assert np.isnan(at_change(change, change[None], np.array([1.0]))).all()


def test_a_fill_that_changes_nothing_has_no_psnr_and_a_drop_of_its_area():
    results = linear()
    results._pairs["m", "m"][1].psnr[:, :, :, 1] = np.inf
    rows = rows_of(results)
    assert np.isnan(rows["area", 1.0, "blur"].psnr)
    assert rows["area", 1.0, "blur"].n == 4
    assert rows["psnr", 30.0, "black"].n == 0


def test_one_fill_has_no_table():
    results = planted([0, 1], axes_of(), np.ones((2, 1, 1)))
    assert occlusion_of(results).fills == []

"""Tables of `leamfast bench maps` from fabricated results, and how faithful fabricated maps are."""

import copy
import json
import math

import numpy as np
import pytest
import torch

from leamfast.cli.output import json_text
from leamfast_bench.maps.fidelity import compare, overlaps, rank_correlation
from leamfast_bench.maps.measure import ratios
from leamfast_bench.maps.tables import tables
from tests.bench.test_maps_rows import single  # noqa: F401 (a fixture)
from tests.leam.conftest import small_iresnet  # noqa: F401 (a fixture)


def timed(name: str, group: str, median: float, **more) -> dict:
    found = {"row": name, "group": group, "precision": "fp32", "why": "", "error": 1e-4, "limit": 1e-2}
    found |= {"peak_bytes": 300 << 20, "median_seconds": median, "images_per_second": 16 / median}
    found |= {"quartiles": [15 / median, 17 / median], "set_up_seconds": 0.5, "gflops": 160 / median}
    return found | {"share_of_peak": None} | more


def left_out(name: str, group: str, why: str, **more) -> dict:
    return {"row": name, "group": group, "precision": "fp32", "why": why} | more


def cell(name: str, references: int, rows: list[dict]) -> dict:
    best, times = ratios(rows)
    about = {"cell": name, "model": "m=random:0", "taps": ["a"] * 9, "batch": 16, "references": references}
    return about | {"gflop_per_image": 10.0, "best": best, "ratios": times, "rows": rows}


def line(row: str, why: str = "", **taps) -> dict:
    return {"model": "m", "row": row, "backend": "b", "precision": "fp32", "why": why, "taps": taps}


def measures(error: float, rank: float, one: float, five: float) -> dict:
    return {"error": error, "rank": rank, "overlap_1": one, "overlap_5": five}


HEADLINE = [
    timed("leamfast eager", "ours", 1.0),
    timed("leamfast compiled", "ours", 0.5, set_up_seconds=30.0),
    left_out("leamfast missing", "ours", "backend must be had"),
    timed("loop by hand", "by hand", 0.9, peak_bytes=None),
    timed("loop by hand, channels_last", "by hand", 0.8),
    timed("bare forward and backward", "floor", 0.7),
    timed("captum, in one pass", "one pass", 1.25),
    timed("captum, as documented", "documented", 10.0),
    left_out("torchcam, in one pass", "one pass", "wrong: off by 2", error=2.0, peak_bytes=1),
    left_out("torchcam, as documented", "documented", "wrong: off by inf", error=math.inf, peak_bytes=1),
]
FOUND = {
    "device": "a machine",
    "threads": 2,
    "cells": [
        cell("the headline", 1, HEADLINE),
        cell("eight references", 8, [timed("leamfast eager", "ours", 2.0), timed("rep", "repeated", 5.0)]),
        cell("one layer", 1, [timed("leamfast eager", "ours", 0.25), HEADLINE[2]]),
        cell("nothing of ours", 1, [HEADLINE[2], HEADLINE[3]]),
    ],
    "faithful": [
        line("eager", a=measures(1e-4, 1.0, 1.0, 0.99), b=measures(2e-3, 0.999, 0.9, 0.995)),
        line("missing", "backend must be had"),
    ],
    "whole": {"cell": "the headline", "images": 192, "backend": "eager", "maps_seconds": 9.0}
    | {"maps_images_per_second": 21.3, "run_seconds": 12.0, "run_images_per_second": 16.0}
    | {"share_of_maps": 0.75, "stored_bytes": 1000},
    "left_out": {"other model, 9 layers": "there is no model other"},
}


@pytest.fixture(params=["as made", "from a file"])
def made(request) -> dict:
    found = copy.deepcopy(FOUND) if request.param == "as made" else json.loads(json_text(FOUND))
    return {table.name: table for table in tables(found)}


def test_every_row_has_every_column(made):
    assert list(made) == [
        "maps", "grid", "references", "whole", "fidelity", "fidelity_layers", "left_out",
    ]  # fmt: skip
    for table in made.values():
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_headline_has_the_fastest_first_and_what_is_wrong_last(made):
    table = made["maps"]
    assert table.title == "the headline, on a machine, 2 threads"
    ratio = {row[0]: row[3] for row in table.rows}
    assert ratio == {
        "leamfast compiled": "1.00",
        "bare forward and backward": "1.40",
        "loop by hand, channels_last": "1.60",
        "loop by hand": "1.80",
        "leamfast eager": "2.00",
        "captum, in one pass": "2.50",
        "captum, as documented": "20.00",
        "torchcam, in one pass": "",
        "torchcam, as documented": "",
    }
    assert list(ratio)[0] == "leamfast compiled"
    assert table.rows[0] == ("leamfast compiled", "32.0", "30.0-34.0", "1.00", "30.0", "300", "1e-04")
    assert table.rows[3][5] == ""  # memory that the system did not tell
    assert table.rows[-2] == ("torchcam, in one pass", "wrong", "", "", "", "", "2e+00")
    assert table.rows[-1][-1] in ("inf", "infinite")


def test_the_grid_compares_our_best_with_the_best_of_each_kind(made):
    table = made["grid"]
    headline, one = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert headline[""] == "the headline"
    assert headline["our best"] == "compiled"
    assert headline["images/s"] == "32.0"
    assert headline["GFLOP/s"] == "320"
    assert headline["eager"] == "2.00"
    assert headline["by hand"] == "1.60"
    assert headline["captum, one pass"] == "2.50"
    assert headline["captum, documented"] == "20.00"
    assert headline["torchcam, one pass"] == headline["pytorch-grad-cam, documented"] == ""
    assert headline["bare pass"] == "1.40"
    assert "of peak" not in headline
    assert one["our best"] == "eager"
    assert one["eager"] == "1.00"
    assert one["by hand"] == ""


def test_the_share_of_a_known_peak_is_a_column():
    found = copy.deepcopy(FOUND)
    found["cells"][0]["rows"][1]["share_of_peak"] = 0.125
    grid = next(table for table in tables(found) if table.name == "grid")
    assert dict(zip(grid.columns, grid.rows[0], strict=True))["of peak"] == "12%"
    assert dict(zip(grid.columns, grid.rows[1], strict=True))["of peak"] == ""


def test_the_other_tables(made):
    assert made["references"].rows[1][:4] == ("rep", "3.20", "3.00-3.40", "2.50")
    assert made["whole"].rows[-1] == ("share of the run that is maps", "75%", "")
    assert made["fidelity"].rows == (("m, eager", "2.0e-03", "b", "0.99900", "0.9000", "0.9900"),)
    assert made["fidelity_layers"].rows[0] == ("m, eager", "a", "1.0e-04", "1.00000", "1.0000", "0.9900")
    assert made["left_out"].rows == (
        ("leamfast missing", "backend must be had", "3"),
        ("torchcam, in one pass", "wrong: off by 2", "1"),
        ("torchcam, as documented", "wrong: off by inf", "1"),
        ("missing", "backend must be had", "1"),
        ("other model, 9 layers", "there is no model other", "1"),
    )


def test_equal_maps_are_faithful_and_others_are_not(single):  # noqa: F811
    generator = torch.Generator().manual_seed(0)
    wanted = torch.rand(4, 9, 9, generator=generator, dtype=torch.float64)
    found = compare(wanted.float(), wanted, single)
    assert found["error"] < 1e-7
    assert found["rank"] == pytest.approx(1)
    assert (found["overlap_1"], found["overlap_5"]) == (1, 1)
    off = compare((wanted + 0.2 * torch.rand(wanted.shape, generator=generator)).float(), wanted, single)
    assert 0.1 < off["error"] < 0.5
    assert 0.5 < off["rank"] < 1
    assert 0 < off["overlap_5"] < 1
    assert compare(-wanted.float(), wanted, single)["rank"] == pytest.approx(-1)


def test_rank_correlation_is_a_mean_over_maps_with_contrast():
    up = torch.arange(4.0, dtype=torch.float64).reshape(1, 2, 2)
    flat = torch.zeros(1, 2, 2, dtype=torch.float64)
    assert rank_correlation(torch.cat([up, 3 - up]), torch.cat([up, up])) == pytest.approx(0, abs=1e-12)
    assert rank_correlation(torch.cat([up**3, flat]), torch.cat([up, up])) == pytest.approx(1)
    assert np.isnan(rank_correlation(flat, up))


def test_overlaps_by_hand():
    """10x10 pixels: the support at 1% is one pixel, at 5% five."""
    wanted = torch.zeros(1, 10, 10)
    wanted[0, 0, :5] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    found = torch.zeros(1, 10, 10)
    found[0, 0, 1:6] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    assert overlaps(wanted, wanted, 10) == [1, 1]
    assert overlaps(found, wanted, 10) == [0, pytest.approx(4 / 6)]
    assert overlaps(torch.zeros(1, 10, 10), torch.zeros(1, 10, 10), 10) == [1, 1]

"""Layers by regions, in percent."""

import numpy as np
import pytest

from leamfast.analysis.analyze import analyze_run
from leamfast.faces.regions import REGIONS
from leamfast.store.arrays import NO_LABEL
from leamfast.store.results import open_results
from tests.analysis.conftest import FACE, planted, sharp


def test_a_line_a_map_and_the_area_below(run):
    found = analyze_run(run([0, 1], sharp(2), FACE, planted(2, nose=[0.2, 0.4], face=[0.8, 0.6])))
    assert found.layers_columns == ("model", "threshold", "map", *REGIONS, "unknown")
    assert [line[:3] for line in found.layers[:6]] == [
        ("m", 1, "a"), ("m", 1, "fused"), ("m", 1, "area"),
        ("m", 2, "a"), ("m", 2, "fused"), ("m", 2, "area"),
    ]  # fmt: skip
    by_name = dict(zip(found.layers_columns, found.layers[0], strict=True))
    assert (by_name["nose"], by_name["face"], by_name["hair"]) == pytest.approx((30, 70, 0))
    area = dict(zip(found.layers_columns, found.layers[2], strict=True))
    assert (area["nose"], area["background"]) == pytest.approx((200 / 64, 62.5))


def test_layers_come_in_order_of_depth_and_lines_sum_to_100(finished_run):
    found = analyze_run(finished_run)
    with open_results(finished_run) as results:
        order = [*results.taps("demo"), "fused", "area"]
    assert [line[2] for line in found.layers] == order * 6
    for line in found.layers:
        assert sum(line[3:]) == pytest.approx(100, abs=1e-3)
        assert line[-1] == 0


def test_columns_are_the_regions_that_the_parser_can_tell(run):
    known = ("face", "re", "le", "nose")
    labels = np.where(FACE == 0, NO_LABEL, FACE).astype(np.uint8)
    found = analyze_run(run([0, 1], np.ones((2, 8, 8)), labels, known=known))
    assert found.layers_columns == ("model", "threshold", "map", *known, "unknown")
    for line in found.layers[-3:]:  # a flat map at 100%, fused, area
        assert line[3:] == pytest.approx((1800 / 64, 200 / 64, 200 / 64, 200 / 64, 62.5), abs=1e-4)


def test_maps_of_nothing_leave_their_line_empty(run):
    found = analyze_run(run([0, 1], np.full((2, 8, 8), np.nan), FACE))
    assert np.isnan(found.layers[0][3:]).all()

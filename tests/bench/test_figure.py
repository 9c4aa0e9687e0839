"""The figure of planted truth."""

import cv2

from leamfast_bench.truth import figure


def test_a_figure_of_the_models_that_ship(tmp_path, monkeypatch):
    monkeypatch.setattr(figure, "PEOPLE", 1)
    monkeypatch.setattr("sys.argv", ["figure", str(tmp_path / "truth.png")])
    figure.main()
    picture = cv2.imread(str(tmp_path / "truth.png"))
    assert picture.shape[1] > 1000
    # The truth and the maps are in colour.
    assert (picture.max(axis=2).astype(int) - picture.min(axis=2) > 100).mean() > 0.01

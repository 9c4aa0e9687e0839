"""Detectors are loaded before a run, or when a picture is not known."""

from pathlib import Path

import numpy as np
import pytest

from leamfast.engine.finding import load_finding
from leamfast.errors import RequestError
from leamfast.faces.detection import DetectorSpec


class _Nothing:
    def detect(self, image: np.ndarray) -> list:
        return []

    def detect_many(self, images: list[np.ndarray]) -> list[list]:
        return [[] for _ in images]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the weights that were loaded; those that hold `bad` cannot be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: list[str] = []

    def load(spec: DetectorSpec, device: str) -> _Nothing:
        names.append(spec.weights.name)
        if spec.weights.read_bytes() == b"bad":
            raise RequestError("detector weights must be others")
        return _Nothing()

    monkeypatch.setattr(DetectorSpec, "load", load)
    return names


def test_the_first_time_before_the_run_and_then_only_for_pictures_that_are_not_known(loaded, tmp_path):
    weights = tmp_path / "a.pth"
    weights.write_bytes(b"good")
    pixels = np.zeros((30, 30, 3), np.uint8)

    def finding():
        return load_finding(f"retinaface={weights}", "arcface", "one", "cpu", 1)

    first = finding()
    assert loaded == ["a.pth"]
    assert str(first.find([pixels], [("a" * 40, None)])[0]) == "no face found"
    second = finding()
    assert str(second.find([pixels], [("a" * 40, None)])[0]) == "no face found"
    assert loaded == ["a.pth"]
    assert str(second.find([pixels] * 2, [("a" * 40, None), ("b" * 40, None)])[1]) == "no face found"
    assert loaded == ["a.pth"] * 2
    second.find([pixels], [("c" * 40, None)])
    assert loaded == ["a.pth"] * 2


def test_what_cannot_be_loaded_is_refused_every_time_before_the_run(loaded, tmp_path, monkeypatch):
    weights = tmp_path / "a.pth"
    weights.write_bytes(b"good")
    load_finding(f"retinaface={weights}", "arcface", "one", "cpu", 1)
    weights.write_bytes(b"bad")
    for _ in range(2):
        with pytest.raises(RequestError, match="must be others"):
            load_finding(f"retinaface={weights}", "arcface", "one", "cpu", 1)
    monkeypatch.setenv("LEAMFAST_FACE_CACHE", "off")
    weights.write_bytes(b"good")
    loaded.clear()
    for _ in range(2):
        load_finding(f"retinaface={weights}", "arcface", "one", "cpu", 1)
    assert loaded == ["a.pth"] * 2

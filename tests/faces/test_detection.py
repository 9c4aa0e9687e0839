"""How a user names a detector, and the picture as detectors search it."""

from pathlib import Path

import numpy as np
import pytest

from leamfast.errors import RequestError
from leamfast.faces.detection import DetectorSpec, parse_detector, to_original, to_small


def test_a_specification_is_read_without_loading_anything(tmp_path: Path) -> None:
    file = tmp_path / "a=b.pth"
    file.touch()
    assert parse_detector(f"retinaface={file}") == DetectorSpec("retinaface", file)
    assert parse_detector(f"dlib={file}") == DetectorSpec("dlib", file)


@pytest.mark.parametrize("text", ["", "retinaface", "retinaface=", "mtcnn=file.pth", "=file.pth", "dlib="])
def test_other_specifications_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="detector must be retinaface=FILE.*got"):
        parse_detector(text)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"there is no file .*absent\.pth"):
        parse_detector(f"retinaface={tmp_path}/absent.pth")
    for name in ("retinaface", "dlib"):
        for file in (tmp_path, "~no-such-person/a.pth", "x" * 5000, "a\0b"):
            with pytest.raises(RequestError, match="there is no file"):
                parse_detector(f"{name}={file}")


def test_coordinates_go_back_through_pixel_centres() -> None:
    small, scale = to_small(np.zeros((1280, 960, 3), np.uint8))
    assert small.shape == (640, 480, 3)
    # Pixel 10 of the shrunk picture covers pixels 20 and 21, so that its centre lies at 20.5.
    np.testing.assert_array_equal(to_original(np.array([[10, 20]]), scale), [[20.5, 40.5]])
    picture = np.zeros((1, 640, 3), np.uint8)
    small, scale = to_small(picture)
    np.testing.assert_array_equal(small, picture)
    np.testing.assert_array_equal(scale, [1, 1])

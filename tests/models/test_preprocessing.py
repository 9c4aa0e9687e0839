import numpy as np
import pytest
import torch

from leamfast.errors import RequestError
from leamfast.models.preprocessing import Preprocessing

VALUES = {"size": 8, "channels": "rgb", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.25, 0.5)}


def test_exact_numbers():
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[0, 2, 3] = (255, 51, 0)
    pixel = Preprocessing.from_mapping(VALUES)(image)[0, :, 2, 3]
    assert torch.allclose(pixel, torch.tensor([1.0, -1.2, -1.0]))


def test_both_scales_mean_the_same():
    wide = {**VALUES, "mean": (127.5, 127.5, 127.5), "std": (127.5, 63.75, 127.5)}
    assert Preprocessing.from_mapping(VALUES) == Preprocessing.from_mapping(wide)


def test_bgr_swaps_channels_before_mean_and_std():
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    rgb = Preprocessing.from_mapping(VALUES)(image)
    bgr = Preprocessing.from_mapping({**VALUES, "channels": "BGR"})(image[..., ::-1].copy())
    assert torch.equal(rgb, bgr)


def test_round_trip_through_a_mapping():
    preprocessing = Preprocessing.from_mapping(VALUES)
    assert Preprocessing.from_mapping(preprocessing.to_dict()) == preprocessing


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 0}, "size"),
        ({"size": 112.0}, "whole number"),
        ({"channels": "gray"}, "rgb or bgr"),
        ({"mean": (1, 2)}, "three"),
        ({"mean": "abc"}, "three numbers"),
        ({"std": (0, 1, 1)}, "positive"),
        ({"std": (float("nan"), 1, 1)}, "finite"),
        ({"colour": 1}, "colour is unknown"),
    ],
)
def test_bad_values_are_named(change, words):
    with pytest.raises(RequestError, match=words):
        Preprocessing.from_mapping({**VALUES, **change})


def test_a_missing_field_is_named():
    with pytest.raises(RequestError, match="std is missing"):
        Preprocessing.from_mapping({k: v for k, v in VALUES.items() if k != "std"})


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 8, 9, 3), (1, 3, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(RequestError, match=r"\(N, 8, 8, 3\)"):
        Preprocessing.from_mapping(VALUES)(np.zeros(shape, np.uint8))


def test_floats_are_refused():
    with pytest.raises(RequestError, match="uint8"):
        Preprocessing.from_mapping(VALUES)(np.zeros((1, 8, 8, 3), np.float32))

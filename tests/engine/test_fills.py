"""What stands in for the pixels of a support, in raw values and as a model takes them."""

import cv2
import numpy as np
import pytest
import torch

from leamfast.engine.fills import fill_of, fill_pictures
from leamfast.models.preprocessing import Preprocessing
from leamfast.store.occlusion import FILLS

SIZE = 24
ROWS = [5, 11]
PREPROCESSING = Preprocessing(SIZE, "bgr", (100.0, 110.0, 120.0), (50.0, 60.0, 70.0))


@pytest.fixture
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


def made(name: str, crops: np.ndarray, rows=ROWS, seed: int = 0):
    return fill_of(name, crops, rows, seed, PREPROCESSING, torch.device("cpu"))


def test_black_is_the_raw_value_zero(crops):
    assert (fill_pictures("black", crops, ROWS, 0) == 0).all()
    filled = made("black", crops)(torch.tensor([1]), torch.ones(1, SIZE, SIZE, dtype=torch.bool))
    # Not what is zero for the network: (0 - mean) / std of each channel, in the model's own order.
    wanted = torch.tensor([-100 / 50, -110 / 60, -120 / 70])
    torch.testing.assert_close(filled[0, :, 3, 4], wanted)


def test_mean_is_the_colour_of_the_crop_itself(crops):
    crops[1] //= 4
    found = fill_pictures("mean", crops, ROWS, 0)
    for crop, picture in zip(crops, found, strict=True):
        assert (picture == picture[0, 0]).all()
        assert np.abs(picture[0, 0] - crop.reshape(-1, 3).mean(axis=0)).max() <= 0.5


def test_blur_is_a_gaussian_of_a_sixteenth_of_the_side(crops):
    impulse = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    impulse[0, 12, 12] = 255
    found = fill_pictures("blur", impulse, [0], 0)[0, :, :, 0].astype(float)
    y, x = np.mgrid[:SIZE, :SIZE] - 12.0
    sigma = SIZE / 16
    wanted = np.exp(-(y**2 + x**2) / (2 * sigma**2))
    np.testing.assert_allclose(found, 255 * wanted / wanted.sum(), atol=1)
    flat = np.full((1, SIZE, SIZE, 3), 90, np.uint8)
    assert (fill_pictures("blur", flat, [0], 0) == 90).all()
    assert fill_pictures("blur", crops, ROWS, 0).std() < 0.5 * crops.std()


def test_noise_depends_on_the_seed_and_the_row_alone(crops):
    found = fill_pictures("noise", crops, ROWS, 0)
    assert found.dtype == np.uint8
    assert 120 < found.mean() < 135
    assert (found.min(), found.max()) == (0, 255)
    np.testing.assert_array_equal(fill_pictures("noise", crops[::-1], ROWS[::-1], 0), found[::-1])
    assert (fill_pictures("noise", crops, ROWS, 1) != found).mean() > 0.9
    assert (found[0] != found[1]).mean() > 0.9


@pytest.mark.parametrize("name", FILLS)
def test_fills_leave_the_crops_alone_and_agree_with_preprocessing(crops, name):
    before = crops.copy()
    fill = made(name, crops)
    rows = torch.tensor([1, 0, 1])
    masks = torch.rand(3, SIZE, SIZE) > 0.7
    raw, taken = fill.raw(rows, masks), fill(rows, masks)
    assert raw.shape == taken.shape == (3, 3, SIZE, SIZE)
    pictures = raw.permute(0, 2, 3, 1).round().to(torch.uint8)
    torch.testing.assert_close(pictures.permute(0, 3, 1, 2).float(), raw)
    torch.testing.assert_close(PREPROCESSING(pictures), taken)
    np.testing.assert_array_equal(crops, before)


def test_inpaint_paints_each_support_from_its_rim(crops):
    masks = torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    masks[0, 4:9, 5:12] = True
    masks[1, 15:18, 2:5] = True
    rows = torch.tensor([0, 1, 0])
    found = made("inpaint", crops).raw(rows, masks).permute(0, 2, 3, 1).numpy()
    for n in range(2):
        hole = masks[n].numpy().astype(np.uint8)
        wanted = cv2.inpaint(crops[rows[n]], hole, 3, cv2.INPAINT_TELEA)
        np.testing.assert_array_equal(found[n], wanted)
        assert (found[n][masks[n]] != crops[rows[n]][masks[n]]).any()
        np.testing.assert_array_equal(found[n][~masks[n]], crops[rows[n]][~masks[n]])
    np.testing.assert_array_equal(found[2], crops[0])  # nothing to paint


@pytest.mark.parametrize("inside", [0, 255])
def test_inpaint_grows_a_flat_surrounding_into_the_hole(inside):
    """Whatever lay in it; OpenCV strays by a value or two."""
    crops = np.full((1, SIZE, SIZE, 3), (200, 80, 30), np.uint8)
    crops[0, 8:14, 8:14] = inside
    masks = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    masks[0, 8:14, 8:14] = True
    found = made("inpaint", crops, [0]).raw(torch.tensor([0]), masks)[0]
    assert (found - torch.tensor([200.0, 80, 30])[:, None, None]).abs().max() <= 2


def test_inpaint_without_a_surrounding_is_black(crops):
    masks = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    assert (made("inpaint", crops).raw(torch.tensor([1]), masks) == 0).all()


def test_an_unknown_fill(crops):
    with pytest.raises(ValueError, match="fill must be black, mean, blur or noise, got 'red'"):
        fill_pictures("red", crops, ROWS, 0)


@pytest.mark.parametrize("name", ["black", "mean", "blur", "noise"])
def test_no_crops_no_pictures(name):
    assert fill_pictures(name, np.zeros((0, SIZE, SIZE, 3), np.uint8), [], 0).shape == (0, SIZE, SIZE, 3)

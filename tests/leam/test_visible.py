"""PSNR by hand, and SSIM against its definition window by window."""

import math

import numpy as np
import pytest
import torch

from leamfast.leam.visible import psnr, ssim


def ssim_by_windows(x: np.ndarray, y: np.ndarray) -> float:
    """Structural similarity of two planes (H, W), float64, by the words of the paper."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mp, mq = (weights * p).sum(), (weights * q).sum()
            vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
            both = (weights * (p - mp) * (q - mq)).sum()
            c1, c2 = 2.55**2, 7.65**2
            top = (2 * mp * mq + c1) * (2 * both + c2)
            found.append(top / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(found))


def test_psnr_by_hand():
    images = torch.zeros(3, 3, 4, 5)
    changed = images.clone()
    changed[0] += 255  # as different as can be: 0 dB
    changed[1] += 25.5  # a tenth of the peak: 20 dB
    changed[2, 1, 2, 3] = 255  # one of 60 values: 10 log10(60)
    wanted = [0, 20, 10 * math.log10(60)]
    assert psnr(images, changed).tolist() == pytest.approx(wanted, abs=1e-4)
    assert psnr(changed, images).tolist() == pytest.approx(wanted, abs=1e-4)
    assert psnr(images, images).isinf().all()


def test_ssim_is_that_of_its_definition():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (2, 3, 14, 17)).astype(np.float64)
    changed = images.copy()
    changed[0, :, 4:9, 3:8] = 0
    changed[1] = (changed[1] + generator.normal(0, 40, changed[1].shape)).clip(0, 255)
    wanted = [
        np.mean([ssim_by_windows(x, y) for x, y in zip(one, two, strict=True)])
        for one, two in zip(images, changed, strict=True)
    ]
    assert min(wanted) > 0.1
    assert max(wanted) < 0.95
    found = ssim(torch.from_numpy(images), torch.from_numpy(changed))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    single = ssim(torch.from_numpy(images).float(), torch.from_numpy(changed).float())
    np.testing.assert_allclose(single, wanted, atol=1e-4)


def test_ssim_of_constant_pictures_by_hand():
    # No variance: (2 a b + c1) / (a^2 + b^2 + c1) with a = 100, b = 50, c1 = 2.55^2.
    a, b = torch.full((1, 3, 11, 11), 100.0).double(), torch.full((1, 3, 11, 11), 50.0).double()
    wanted = (2 * 100 * 50 + 2.55**2) / (100**2 + 50**2 + 2.55**2)
    assert ssim(a, b).item() == pytest.approx(wanted, rel=1e-9)


def test_ssim_is_one_for_equal_images_and_symmetric():
    images = torch.randint(0, 256, (2, 3, 20, 20)).double()
    changed = images.flip(3)
    torch.testing.assert_close(ssim(images, images), torch.ones(2).double())
    torch.testing.assert_close(ssim(images, changed), ssim(changed, images))
    assert (ssim(images, changed) < 0.9).all()
    # One image at a time is the same.
    one_by_one = torch.cat([ssim(images[i : i + 1], changed[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(ssim(images, changed), one_by_one)


def test_ssim_needs_room_for_a_window():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))

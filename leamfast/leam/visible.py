"""How much of a change can be seen: PSNR and SSIM of changed images against the images themselves.

    PSNR = 10 log10(255^2 / MSE),   infinite where nothing changed
    SSIM = mean over windows of (2 m_x m_y + c_1)(2 s_xy + c_2) / ((m_x^2 + m_y^2 + c_1)(s_x^2 + s_y^2 + c_2))

with Gaussian windows of 11 x 11 pixels and sigma 1.5, c_1 = (0.01 * 255)^2 and c_2 = (0.03 * 255)^2, windows
that lie inside the image, and the mean over its channels.

Reference: Wang, Bovik, Sheikh and Simoncelli, Image quality assessment: from error visibility to structural
similarity, IEEE Transactions on Image Processing 13(4), 2004.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["psnr", "ssim"]

PEAK = 255.0
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def psnr(images: Tensor, changed: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB.

    Args:
        images: raw pixel values 0 to 255, (N, C, H, W), floating.
        changed: likewise.

    Returns:
        (N,), in the dtype of `images`; infinity where both are equal.
    """
    error = (images - changed).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(PEAK**2 / error)


def ssim(images: Tensor, changed: Tensor) -> Tensor:
    """Structural similarity, from -1 to 1.

    Args:
        images: raw pixel values 0 to 255, (N, C, H, W), floating; H and W at least 11.
        changed: likewise.

    Returns:
        (N,), in the dtype of `images`; 1 where both are equal.

    Raises:
        ValueError: images are smaller than a window.
    """
    if min(images.shape[2:]) < WINDOW:
        raise ValueError(f"images must have at least {WINDOW} pixels a side, got {tuple(images.shape[2:])}")
    x, y = images.flatten(0, 1)[:, None], changed.flatten(0, 1)[:, None]
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    moments = torch.cat([x, y, x * x, y * y, x * y])
    moments = F.conv2d(F.conv2d(moments, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    mx, my, xx, yy, xy = moments.chunk(5)
    similarity = (2 * mx * my + C1) * (2 * (xy - mx * my) + C2)
    similarity = similarity / ((mx**2 + my**2 + C1) * (xx - mx**2 + yy - my**2 + C2))
    return similarity.flatten(1).mean(dim=1).view(len(images), -1).mean(dim=1)

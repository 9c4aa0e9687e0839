"""References: the other images of the same identity that an image is compared with.

A reference is never the image itself: there the gradient of 1 - cos is zero, and normalising what is left
would amplify rounding noise.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["POLICIES", "SAME", "draw_references", "leave_one_out"]

POLICIES = ("mean", "each", "mean-map")
SAME = 1e-6  # a cosine closer to 1 than this means that the reference equals its image


def leave_one_out(identities: Tensor) -> Tensor:
    """W with W @ unit(f) = the mean unit embedding of each image's identity without the image.

    Args:
        identities: identity numbers of the images of a batch, shape (B,), integer.

    Returns:
        float32, shape (B, B), zero on the diagonal; an image alone in its identity has a row of zeros.
    """
    same = (identities[:, None] == identities[None, :]).float()
    same.fill_diagonal_(0)
    return same / same.sum(dim=1, keepdim=True).clamp_min(1)


def draw_references(positions: Sequence[int] | np.ndarray, image: int, most: int, seed: int) -> list[int]:
    """Which other images of an identity serve an image as references, one map each.

    Args:
        positions: positions in the manifest of the identity's images, in ascending order.
        image: the image's own position, one of them.
        most: how many at most; fewer are drawn without replacement.
        seed: the run's seed; together with `image` it decides the draw, whoever computes it.

    Returns:
        Positions in ascending order.

    Raises:
        ValueError: `image` is none of `positions`.
    """
    ascending = np.asarray(positions, np.int64)
    own, others = int(np.searchsorted(ascending, image)), len(ascending) - 1
    if own > others or ascending[own] != image:
        raise ValueError(f"image must be one of positions, got {image}: a draw leaves it out")
    # Numbers of the others, never a list of them: a person can have a million images.
    numbers = np.arange(max(0, others))
    if others > most:
        numbers = np.random.default_rng([seed, image]).choice(others, size=most, replace=False)
        numbers.sort()
    return ascending[numbers + (numbers >= own)].tolist()


def unit(embeddings: Tensor) -> Tensor:
    """Embeddings scaled to length 1 along the last dimension."""
    return torch.nn.functional.normalize(embeddings, dim=-1)

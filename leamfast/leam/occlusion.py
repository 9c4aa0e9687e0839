"""What a model makes of images of which some pixels are filled.

    x'_m = fill on m, x elsewhere;   drop = (u(x) - u(x'_m)) . r,   u(x) = f(x) / |f(x)|

r is the mean of unit embeddings of references: the drop is linear in it, so that one product gives the mean
of the drops against all of them, and every occluded image is embedded once.

Reference: arXiv 2509.17457, which blacks out the most important pixels.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from leamfast.leam.references import unit

__all__ = ["Filled", "Masks", "drops", "occluded_units"]


class Filled(Protocol):
    """What stands in for pixels."""

    def __call__(self, rows: Tensor, masks: Tensor, /) -> Tensor:
        """Preprocessed pictures of which the pixels of masks are taken.

        Args:
            rows: of the pictures, (B,), int64.
            masks: their masks, (B, S, S), bool.

        Returns:
            (B, 3, S, S), float32.
        """


class Masks:
    """Masks of the pictures of a block, collected to be embedded together.

    Attributes:
        count: how many there are.

    Args:
        size: side in pixels.
        device: where they lie.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.count = 0
        self._masks: list[Tensor] = [torch.empty((0, size, size), dtype=torch.bool, device=device)]
        self._rows: list[Tensor] = [torch.empty(0, dtype=torch.int64, device=device)]

    def add(self, masks: Tensor, rows: Tensor) -> Tensor:
        """Add masks.

        Args:
            masks: (n, ..., S, S), bool.
            rows: of the pictures that they belong to, (n,), int64.

        Returns:
            The number of each mask, (n, ...), int64.
        """
        shape = masks.shape[:-2]
        flat = masks.flatten(0, -3)
        numbers = torch.arange(self.count, self.count + len(flat), device=flat.device)
        self._masks.append(flat)
        self._rows.append(rows.repeat_interleave(len(flat) // max(1, len(rows))))
        self.count += len(flat)
        return numbers.view(shape)

    @property
    def all(self) -> tuple[Tensor, Tensor]:
        """All masks (M, S, S) and the rows of their pictures (M,)."""
        self._masks, self._rows = [torch.cat(self._masks)], [torch.cat(self._rows)]
        return self._masks[0], self._rows[0]


@torch.no_grad()
def occluded_units(
    embed: Callable[[Tensor], Tensor],
    pictures: Tensor,
    filled: Filled,
    masks: Tensor,
    rows: Tensor,
    batch: int,
) -> Tensor:
    """Unit embeddings of pictures with masks filled.

    Args:
        embed: preprocessed images (B, 3, S, S) -> embeddings (B, D).
        pictures: preprocessed, (n, 3, S, S).
        filled: what stands in.
        masks: (M, S, S), bool.
        rows: picture of each mask, (M,), int64.
        batch: images that are embedded together.

    Returns:
        (M, D), float32; on a GPU each batch is full, so that what was captured for one serves all.
    """
    found = []
    for start in range(0, len(masks), batch):
        mine, theirs = masks[start : start + batch], rows[start : start + batch]
        images = torch.where(mine[:, None], filled(theirs, mine), pictures[theirs])
        missing = batch - len(images) if images.is_cuda else 0
        if missing:
            images = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])
        found.append(unit(embed(images).float())[: len(mine)])
    return torch.cat(found) if found else torch.empty((0, 0), device=pictures.device)


def drops(whole: Tensor, occluded: Tensor, references: Tensor) -> Tensor:
    """Fall of the mean cosine with the references.

    Args:
        whole: unit embeddings of the images as they are, (n, D).
        occluded: unit embeddings of images with pixels filled, (n, ..., D).
        references: mean of the unit embeddings of each image's references, (n, D).

    Returns:
        (n, ...), float32.
    """
    shape = (len(whole), *[1] * (occluded.dim() - 2), whole.shape[1])
    return ((whole.view(shape) - occluded) * references.view(shape)).sum(dim=-1)

"""Region shares of the maps of a batch, as they are stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from leamfast.faces.regions import REGIONS
from leamfast.leam.registration import Centres
from leamfast.models.devices import upload
from leamfast.store.arrays import NO_LABEL, THRESHOLDS
from leamfast_kernels import region_share

__all__ = ["Masks", "shares"]


@dataclass(frozen=True)
class Masks:
    """Region masks of a batch, on the device of its maps: nothing is asked of the device between the two.

    Attributes:
        labels: (B, size, size) uint8, `len(REGIONS)` where nothing is known.
        hidden: (B, 1, regions), whether a region's share cannot be told; None for a run without masks.
    """

    labels: Tensor
    hidden: Tensor | None

    @classmethod
    def of(
        cls, labels: np.ndarray | None, count: int, size: int, known: Sequence[str], device: torch.device
    ) -> Self:
        """Upload the masks of a batch.

        Args:
            labels: (B, size, size) uint8, 255 where nothing is known; None for a run without masks.
            count: B.
            size: side of the crops.
            known: the regions that the masks can tell.
            device: of the maps.
        """
        if labels is None:
            return cls(torch.zeros(count, size, size, dtype=torch.uint8, device=device), None)
        masked = (labels != NO_LABEL).any(axis=(1, 2))
        told = np.isin(REGIONS, known)
        hidden = torch.from_numpy(~(masked[:, None] & told))[:, None]
        clamped = torch.from_numpy(np.minimum(labels, len(REGIONS)))
        return cls(upload(clamped, device), upload(hidden, device))


def shares(
    group: str, maps: Tensor, masks: Masks, size: int, centres: Centres | None = None
) -> dict[str, Tensor]:
    """Support sizes and, where there are region masks, region shares.

    Args:
        group: HDF5 path of the maps, with which the names of the results begin.
        maps: (B, h, w).
        masks: of the same images.
        size: side of the crops.
        centres: place of the cells, as for `region_share`.

    Returns:
        `group/support_size` (B, thresholds) and `group/region_share` (B, thresholds, regions), NaN where an
        image has no mask and for regions that cannot be told.
    """
    # One class more takes in the pixels of which nothing is known.
    found, sizes = region_share(maps, masks.labels, THRESHOLDS, size, centres, classes=len(REGIONS) + 1)
    if masks.hidden is None:
        return {f"{group}/support_size": sizes}
    told = found[..., : len(REGIONS)].masked_fill(masks.hidden, torch.nan)
    return {f"{group}/support_size": sizes, f"{group}/region_share": told}

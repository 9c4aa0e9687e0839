"""When the support that a kernel finds counts as that of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leamfast_kernels.selection import finite, pixel_count
from leamfast_kernels.support import support_reference
from leamfast_kernels.upsample import resample

UNITS = 2  # in the last place


def assert_same_support(
    masks: Tensor,
    maps: Tensor,
    percents: Sequence[float],
    height: int,
    width: int,
    centres: Sequence[float] | None,
) -> None:
    """Masks may differ from the reference only in pixels that lie within 2 units of the last one it takes.

    The last one is zero where all positive pixels belong to the support. The unit of a pixel is that of the
    terms that it is the sum of: with cells of both signs they can be larger than their sum.
    """
    wanted = support_reference(maps, percents, height, width, centres)
    assert masks.dtype == torch.bool
    assert masks.shape == wanted.shape
    assert masks.is_contiguous()
    usable = finite(maps.float())
    assert not masks[~usable].any()
    masks, wanted = masks[usable], wanted[usable]
    values = resample(maps.float(), height, width, centres)[usable, None].double()
    terms = resample(maps.float().abs(), height, width, centres)[usable, None]
    unit = UNITS * (torch.nextafter(terms, torch.full_like(terms, torch.inf)) - terms).double()
    counts = torch.tensor([pixel_count(percent, height, width) for percent in percents], device=maps.device)
    sizes = wanted.sum(dim=(2, 3))
    least = torch.where(wanted, values, torch.inf).amin(dim=(2, 3))
    least = torch.where((sizes < counts) | (counts == 0), 0.0, least)[:, :, None, None]
    close = (values - least).abs() <= unit
    assert not ((masks ^ wanted) & ~close).any(), "a pixel that is not close to the last one was swapped"
    # Whether a pixel is positive at all can be a matter of rounding too, if there is anything to round.
    doubtful = ((values.abs() <= unit) & (terms > 0)).sum(dim=(2, 3))
    assert ((masks.sum(dim=(2, 3)) - sizes).abs() <= doubtful).all(), "another number of pixels"
    assert (masks.sum(dim=(2, 3)) <= counts).all()

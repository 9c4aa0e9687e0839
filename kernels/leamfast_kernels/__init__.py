"""Array operations for saliency maps: torch tensors in, torch tensors out, on any device.

Every operation is a `torch.library` operator (`torch.ops.leamfast.*`) behind a function that checks its
arguments, so it runs eagerly and inside `torch.compile(fullgraph=True)` alike. None of them has a gradient.
Importing this package starts no device and imports torch and NumPy alone.
"""

from __future__ import annotations

from leamfast_kernels.aggregate import Statistics, aggregate, aggregate_reference, aggregate_statistics
from leamfast_kernels.aggregate_backward import (
    Backward,
    aggregate_backward,
    aggregate_backward_reference,
)
from leamfast_kernels.area_average import area_average
from leamfast_kernels.bhattacharyya import bhattacharyya, bhattacharyya_reference
from leamfast_kernels.bhattacharyya_matrix import (
    bhattacharyya_matrix,
    bhattacharyya_matrix_reference,
    bhattacharyya_tiles,
)
from leamfast_kernels.emd import METHODS, EmdResult, emd, emd_lower_bound, emd_matrix, emd_pairs
from leamfast_kernels.occlude import occlude, occlude_reference
from leamfast_kernels.region_share import region_share, region_share_reference
from leamfast_kernels.support import support, support_reference
from leamfast_kernels.upsample import upsample

__all__ = [
    "METHODS",
    "Backward",
    "EmdResult",
    "Statistics",
    "aggregate",
    "aggregate_backward",
    "aggregate_backward_reference",
    "aggregate_reference",
    "aggregate_statistics",
    "area_average",
    "bhattacharyya",
    "bhattacharyya_matrix",
    "bhattacharyya_matrix_reference",
    "bhattacharyya_reference",
    "bhattacharyya_tiles",
    "emd",
    "emd_lower_bound",
    "emd_matrix",
    "emd_pairs",
    "occlude",
    "occlude_reference",
    "region_share",
    "region_share_reference",
    "support",
    "support_reference",
    "upsample",
]

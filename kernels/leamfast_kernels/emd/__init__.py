"""Earth Mover's Distance of saliency maps: exact on a CPU, bracketed on a GPU, always with a certificate."""

from __future__ import annotations

from leamfast_kernels.emd.bounds import emd_lower_bound
from leamfast_kernels.emd.distance import METHODS, EmdResult, emd, emd_matrix, emd_pairs

__all__ = ["METHODS", "EmdResult", "emd", "emd_lower_bound", "emd_matrix", "emd_pairs"]

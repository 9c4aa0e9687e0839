"""How faithful a backend and a precision are to float64, tap by tap.

Speed is measured on networks with random weights; what rounding does to a map is asked of a trained one too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from leamfast_bench.maps.case import Case
from leamfast_bench.maps.exact import Exact
from leamfast_bench.maps.gate import relative_error
from leamfast_bench.maps.ours import Explainers, variants
from leamfast_bench.maps.row import reason
from leamfast_kernels import support

__all__ = ["PERCENTS", "compare", "fidelity", "overlaps", "rank_correlation"]

PERCENTS = (1, 5)


def fidelity(
    case: Case, wanted: Exact, explainers: Explainers, note: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One line a backend and precision: what its maps have in common with the right ones.

    Args:
        case: one reference an image.
        wanted: the right answer.
        explainers: of the case's model.
        note: told of progress.
    """
    lines = []
    for name, backend, precision in variants(case.device):
        line: dict[str, Any] = {"model": case.model.name, "row": name, "backend": backend}
        line |= {"precision": precision, "why": "", "taps": {}}
        try:
            maps = explainers(case.model, case.taps, backend, precision)(case.images, case.references).maps
            line["taps"] = {tap: compare(maps[tap], wanted.maps[tap], case) for tap in case.taps}
        except Exception as exc:  # the others go on
            line["why"] = reason(exc)
        note(f"  {name}: {line['why'] or 'compared'}")
        lines.append(line)
    return lines


def compare(found: Tensor, wanted: Tensor, case: Case) -> dict[str, float]:
    """Relative L2 error, rank correlation, and overlap of the supports, means over the images.

    Args:
        found: maps of a tap, (N, h, w).
        wanted: the same in float64.
        case: whose input size the supports have.
    """
    found = found.float().cpu()
    measures = {"error": relative_error(found, wanted), "rank": rank_correlation(found, wanted)}
    overlap = overlaps(found, wanted, case.model.preprocessing.size)
    return measures | {f"overlap_{p}": value for p, value in zip(PERCENTS, overlap, strict=True)}


def rank_correlation(found: Tensor, wanted: Tensor) -> float:
    """Spearman's, of the cells of each map; maps without contrast are left out."""
    each = [
        stats.spearmanr(a, b).statistic
        for a, b in zip(found.flatten(1).numpy(), wanted.flatten(1).numpy(), strict=True)
        if np.ptp(a) > 0 and np.ptp(b) > 0
    ]
    return float(np.mean(each)) if each else float("nan")


def overlaps(found: Tensor, wanted: Tensor, size: int) -> list[float]:
    """Intersection over union of the supports at each of `PERCENTS`."""
    ours, right = (support(maps.float(), PERCENTS, size) for maps in (found, wanted))
    union = (ours | right).sum(dim=(2, 3))
    shared = (ours & right).sum(dim=(2, 3))
    # Two empty supports agree.
    share = torch.where(union > 0, shared / union.clamp_min(1), torch.ones_like(union, dtype=torch.float32))
    return [float(value) for value in share.mean(dim=0)]

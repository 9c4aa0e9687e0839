"""Layers by regions: the shape of Table 1 of arXiv 2509.17457.

Percent of the most relevant pixels in each region, a line a map, and below the maps of a model a line `area`
with the percent of the crop: what pixels drawn at random would give.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["layers_columns", "layers_rows"]


def layers_columns(regions: Sequence[str]) -> tuple[str, ...]:
    """Header of the table; `unknown` are pixels of which the parser cannot tell the region."""
    return ("model", "threshold", "map", *regions, "unknown")


def layers_rows(
    model: str,
    thresholds: Sequence[int],
    known: Sequence[str],
    lines: Sequence[tuple[str, np.ndarray]],
    regions: Sequence[str],
) -> list[tuple]:
    """Rows of one model: at each threshold its lines in their order.

    Args:
        model: its name.
        thresholds: the T percents.
        known: the R regions that its masks can tell.
        lines: name and mean shares (T, R) of its maps in order of depth, of `fused`, and of `area`.
        regions: the columns; one that is not known is NaN.

    Returns:
        model, threshold, name, and percents that sum to 100.
    """
    return [
        (model, threshold, name, *_percents(means[i], known, regions))
        for i, threshold in enumerate(thresholds)
        for name, means in lines
    ]


def _percents(values: np.ndarray, known: Sequence[str], regions: Sequence[str]) -> list[float]:
    found = dict(zip(known, (100 * values).tolist(), strict=True))
    unknown = max(0.0, 100 - 100 * float(values.sum())) if np.isfinite(values).all() else np.nan
    # What is left by the rounding of float32 shares is no pixel.
    return [*(found.get(region, np.nan) for region in regions), 0.0 if unknown < 1e-4 else unknown]

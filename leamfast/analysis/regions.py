"""Region shares of a run as a table: which parts of the face the supports of the maps lie in."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from leamfast.analysis.bootstrap import mean_interval
from leamfast.errors import RequestError
from leamfast.store.arrays import NO_LABEL
from leamfast.store.atomic import write_atomically
from leamfast.store.results import Results, open_results
from leamfast.store.run_folder import RunFolder

__all__ = ["COLUMNS", "region_rows", "write_region_table"]

COLUMNS = ("model", "map", "threshold", "region", "share", "area", "over_representation", "low", "high", "n")
ROWS_AT_ONCE = 1024


def write_region_table(root: Path) -> tuple[Path, int]:
    """Write `tables/regions.csv` of a result folder.

    Returns:
        The file, and how many rows it has.

    Raises:
        RequestError: the folder holds no run, or one without region masks.
    """
    with open_results(root) as results:
        try:
            rows = list(region_rows(results))
        except OSError as exc:
            raise RequestError(f"{root} cannot be read ({exc}): see `leamfast verify`") from exc
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([*row[:4], *(f"{v:.6g}" for v in row[4:9]), row[9]] for row in rows)
    path = RunFolder(root).tables / "regions.csv"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, text.getvalue().encode())
    return path, len(rows)


def region_rows(results: Results) -> Iterator[tuple]:
    """Rows of the table, with the columns of `COLUMNS`.

    `share` is the mean over images of the fraction of the support (at threshold 100, of the map's mass) that
    lies in the region, `low` and `high` its 95% interval by a bootstrap over identities, `area` the mean
    fraction of the crop that the region covers, `over_representation` share / area, `n` the images.
    """
    thresholds = results.file["threshold"][...]
    regions = results.text("region")
    identities = results.identities
    for model in results.models:
        areas = _areas(results, model, len(regions))
        for name in (*results.taps(model), "fused"):
            shares = results.region_share(model, name).astype(np.float64)
            flat = shares.reshape(len(shares), -1)
            mean, low, high, n = mean_interval(flat, identities)
            area = _mean_area(areas, shares)
            for i, threshold in enumerate(thresholds):
                for j, region in enumerate(regions):
                    k = i * len(regions) + j
                    over = mean[k] / area[i, j] if area[i, j] > 0 else np.nan
                    found = mean[k], area[i, j], over, low[k], high[k], int(n[k])
                    yield (model, name, int(threshold), region, *found)


def _areas(results: Results, model: str, regions: int) -> np.ndarray:
    """Fraction of each crop that each region covers, (row, region); NaN for a crop without a mask."""
    crop = results.file[f"crop/{results.file['model'][model].attrs['input_size']}"]
    if "label" not in crop:
        raise RequestError(f"{results.root} has no region shares: its images came without region masks")
    labels = crop["label"]
    if len(labels) == 0:
        raise RequestError(f"{results.root} holds no usable image: its failures.csv says why")
    areas = np.full((len(labels), regions), np.nan)
    for start in range(0, len(labels), ROWS_AT_ONCE):
        for i, label in enumerate(labels[start : start + ROWS_AT_ONCE], start):
            if label[0, 0] != NO_LABEL:
                areas[i] = np.bincount(label.ravel(), minlength=regions) / label.size
    return areas


def _mean_area(areas: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Mean area over the images that have a share at each threshold, (threshold, region)."""
    found = np.isfinite(shares).all(axis=2)
    counts = np.maximum(found.sum(axis=0), 1)
    return (found.T.astype(float) @ np.nan_to_num(areas)) / counts[:, None]

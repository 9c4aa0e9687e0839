"""A figure of maps laid over their faces, for a few people and several taps."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from leamfast.datasets.decoding import read_image
from leamfast.store.results import Results

__all__ = ["lay_over", "overlay_figure"]

CELL_INCHES = 1.15
GREY = 0.45  # what the legend lies on, as the maps lie on the grey face


def _colours() -> ListedColormap:
    """Perceptually uniform and readable without colour vision; low values let the face show through."""
    colours = colormaps["inferno"](np.linspace(0, 1, 256))
    colours[:, 3] = np.linspace(0.25, 0.9, 256)
    return ListedColormap(colours, "see-through inferno")


COLOURS = _colours()


def overlay_figure(results: Results, model: str, rows: Sequence[int], root: Path, path: Path) -> None:
    """Draw one line a face: the crop, the map of each tap, and the fused map, each relative to its maximum.

    Args:
        results: the run.
        model: whose maps.
        rows: which images.
        root: folder that image paths start from.
        path: the PNG to write.
    """
    taps = results.taps(model)
    size = int(results.file["model"][model].attrs["input_size"])
    titles = ["face", *taps, "fused"]
    figure = Figure(
        figsize=(CELL_INCHES * len(titles) + 0.3, CELL_INCHES * len(rows) + 1.0),
        layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.04),
    )
    FigureCanvasAgg(figure)
    axes = np.atleast_2d(figure.subplots(len(rows), len(titles)))
    for line, row in zip(axes, rows, strict=True):
        face = _crop(results, row, size, root)
        maps = [_at_input_size(results, model, tap, row, size) for tap in taps]
        fused = np.mean([m / m.sum() if m.sum() > 0 else m for m in maps], axis=0)
        for axis, shown in zip(line, [None, *maps, fused], strict=True):
            axis.imshow(face)
            if shown is not None:
                lay_over(axis, face, shown)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
        line[0].set_ylabel(str(results.text("identity/name")[results.identities[row]]), fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    scale = ScalarMappable(Normalize(0, 1), COLOURS)
    bar = figure.colorbar(scale, ax=axes, orientation="horizontal", fraction=0.04, aspect=60, pad=0.02)
    attributes = results.file["model"][model].attrs
    bar.set_label(
        f"map relative to its maximum; model {model}, target {attributes['target']}, "
        f"references {attributes['references']}",
        fontsize=8,
    )
    bar.ax.tick_params(labelsize=7)
    bar.ax.set_facecolor((GREY, GREY, GREY))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def lay_over(axis: Axes, face: np.ndarray, shown: np.ndarray) -> None:
    """Colours where the map is high, the grey face where it is low."""
    relative = shown / shown.max() if shown.max() > 0 else shown
    grey = np.repeat(face.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    axis.imshow(grey)
    axis.imshow(relative, cmap=COLOURS, vmin=0, vmax=1)


def _crop(results: Results, row: int, size: int, root: Path) -> np.ndarray:
    pixels = read_image(root / results.text("image/path")[row]).pixels
    transform = results.file[f"crop/{size}/transform"][row]
    return cv2.warpAffine(pixels, transform, (size, size), flags=cv2.INTER_LINEAR)


def _at_input_size(results: Results, model: str, tap: str, row: int, size: int) -> np.ndarray:
    """A map, bilinear between the stored centres of its cells and constant outside them."""
    values = results.map(model, tap, [row])[0]
    layer = results.file["model"][model]["layer"][tap]
    pixels = np.arange(size)
    rows, columns = (np.interp(pixels, layer[axis], np.arange(len(layer[axis]))) for axis in "hw")
    across, down = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    return cv2.remap(values, across, down, interpolation=cv2.INTER_LINEAR)

"""What an occlusion pass computes: its controls, its settings and its blocks of rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from leamfast.engine.occlude import OccludePiece, images_of_row
from leamfast.engine.occlude_request import STEPS, OccludeRequest, controls_of
from leamfast.engine.occlude_settings import Evaluated, OccludeSettings
from leamfast.engine.request import BatchRequest
from leamfast.errors import RequestError
from leamfast.faces.pose import nearest_pose, points_of_labels, pose_vectors
from leamfast.store.results import Results
from leamfast.store.settings import settings_sha256

__all__ = ["images_of_model", "plan_blocks", "settings_of", "sources_of", "usable_controls"]

IMAGES = {"cpu": 2**13, "cuda": 2**17}
"""Occluded images of a block, about: half a minute of work, which a killed pass loses at most."""

MOST = 1024
"""Rows of a block."""

BLOCKS = 2000
"""Of a pass, at most: each is a file of the index."""

ROWS = 1024
"""Region masks that are read at once."""


def usable_controls(
    request: OccludeRequest, results: Results, note: Callable[[str], None]
) -> tuple[str, ...]:
    """The controls of a request that the run can have; of the others the user is told why."""
    reasons = {}
    if not all(results.has_masks(model) for model in results.models):
        reasons["shifted-on-face"] = "there are no region masks, which `leamfast batch --parser` makes"
    if not any(np.isfinite(poses).any() for poses in _poses(results)):
        reasons["nearest-pose"] = "neither face points nor region masks say how heads are turned"
    if len(np.unique(results.identities)) < 2:
        reasons |= dict.fromkeys(("other-identity", "population"), "there is only one person")
    kept = []
    for control in controls_of(request):
        if control in reasons:
            note(f"without the control {control}: {reasons[control]}")
        else:
            kept.append(control)
    return tuple(kept)


def sources_of(request: OccludeRequest, results: Results) -> tuple[str, ...]:
    """Names of the models whose maps are occluded.

    Raises:
        RequestError: one is not in the run.
    """
    for name in request.sources or ():
        if name not in results.models:
            raise RequestError(
                f"--sources must name models of the run ({', '.join(results.models)}), got {name!r}"
            )
    return tuple(name for name in results.models if request.sources is None or name in request.sources)


def settings_of(
    request: OccludeRequest,
    batch: BatchRequest,
    results: Results,
    evaluated: Sequence[Evaluated],
    frozen: Mapping[str, Any],
) -> OccludeSettings:
    """Settings of a pass.

    Args:
        request: what is asked.
        batch: what was asked of the run.
        results: the run.
        evaluated: the models that embed occluded images.
        frozen: what the values depend on.
    """
    return OccludeSettings(
        root=request.out,
        evaluated=tuple(evaluated),
        sources=tuple(frozen["sources"]),
        percents=tuple(frozen["percents"]),
        controls=tuple(frozen["controls"]),
        fills=tuple(frozen["fills"]),
        seeds=tuple(range(request.seeds)),
        steps=STEPS if request.curves else (),
        align=batch.align,
        policy=batch.references,
        max_references=batch.max_references,
        draws=batch.seed,
        target=batch.target,
        activation=batch.activation,
        registration=batch.registration,
        precision=batch.precision,
        each=batch.references == "each",
        batch=frozen["batch_size"],
        threads=frozen["threads"],
        device=request.device,
        trust_code=request.trust_code,
        run=settings_sha256(frozen),
    )


def plan_blocks(results: Results, settings: OccludeSettings) -> list[OccludePiece]:
    """All rows of a run in blocks, whose borders follow from the run and the settings alone."""
    rows, s = len(results), settings
    images = images_of_model(results, s.sources, s.percents, s.controls, len(s.seeds), s.steps)
    images *= len(s.evaluated) * len(s.fills)
    wanted = IMAGES[torch.device(s.device).type] * rows // max(1, images)
    step = max(1, min(wanted, MOST), -(-rows // BLOCKS))
    nearest = _nearest(results) if "nearest-pose" in settings.controls else np.full(rows, -1)
    starts = range(0, rows, step)
    return [
        OccludePiece(number, len(starts), start, min(step, rows - start), nearest[start : start + step])
        for number, start in enumerate(starts)
    ]


def images_of_model(
    results: Results,
    sources: Sequence[str],
    percents: Sequence[float],
    controls: Sequence[str],
    seeds: int,
    steps: Sequence[float],
) -> int:
    """Occluded images of a whole pass that one model embeds with one fill, about."""
    count = 0
    for source in sources:
        taps = results.taps(source)
        each = results.each(source, taps[0])
        single = 1 if each is None else max(1, round(len(each.image) / len(results)))
        count += images_of_row(len(taps) + 1, single, percents, controls, seeds, steps)
    return count * len(results)


def _nearest(results: Results) -> np.ndarray:
    """Row of nearest pose of each row; near-duplicates have none and are none."""
    vectors = np.concatenate(list(_poses(results)))
    for model in results.models:
        vectors[results.duplicates(model) >= 0] = np.nan
    return nearest_pose(vectors, results.identities)


def _poses(results: Results) -> Iterator[np.ndarray]:
    """Pose vectors (n, 10) of all rows, a block at a time, from face points or from region masks.

    NaN where there is neither.
    """
    model = next((model for model in results.models if results.has_masks(model)), None)
    for start in range(0, len(results), ROWS):
        rows = slice(start, min(start + ROWS, len(results)))
        points = results.points(rows)
        if points is None and model is not None:
            points = points_of_labels(results.labels(model, rows))
        yield np.full((rows.stop - start, 10), np.nan) if points is None else pose_vectors(points)

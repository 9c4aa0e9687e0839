"""Our RetinaFace beside facer's own, which is asked image by image: photos a second for the same boxes."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leamfast.datasets.decoding import read_image
from leamfast.datasets.formats import read_manifest
from leamfast.engine.crops import HELD
from leamfast.faces.detection import DetectorSpec, to_small
from leamfast.faces.selection import THRESHOLD, Detection
from leamfast_bench.maps.timing import interleaved, spread_of

__all__ = ["LIMIT", "measure_detection"]

LIMIT = 0.01  # pixels

Faces = list[np.ndarray]
"""Of each picture, box and five points of every face, (faces, 14), best first."""


def measure_detection(
    spec: DetectorSpec, photos: Path, number: int, rounds: int, device: str, note: Callable[[str], None]
) -> dict[str, Any]:
    """Photos a second by both, after their boxes and points were found equal.

    Args:
        spec: RetinaFace with its weights.
        photos: folder of the photos.
        number: how many are searched, lying decoded in memory, at the size in which we search them.
        rounds: how often each is timed, in turn.
        device: where both compute.
        note: told of progress.
    """
    manifest = read_manifest(photos)
    pictures = [to_small(read_image(manifest.resolve(e)).pixels)[0] for e in manifest.entries[:number]]
    calls = {"leamfast": _ours(spec, device, pictures), "facer": _facer(spec, device, pictures)}
    found = {name: call() for name, call in calls.items()}
    error = _largest_difference(*found.values())
    about: dict[str, Any] = {"pictures": len(pictures), "faces": sum(map(len, found["facer"]))}
    about |= {"error": error, "limit": LIMIT, "rows": [], "ratio": None}
    if not error <= LIMIT:
        note(f"  boxes differ by {error:.3g} pixels, where {LIMIT:g} are allowed: nothing is timed")
        return about
    seconds = interleaved(calls, dict.fromkeys(calls, rounds), device)
    for name, measured in seconds.items():
        low, middle, high = spread_of([len(pictures) / s for s in measured])
        about["rows"].append({"row": name, "photos_per_second": middle, "quartiles": [low, high]})
        note(f"  {name}: {middle:.1f} photos/s")
    ours, theirs = about["rows"]
    return about | {"ratio": ours["photos_per_second"] / theirs["photos_per_second"]}


def _ours(spec: DetectorSpec, device: str, pictures: Sequence[np.ndarray]) -> Callable[[], Faces]:
    detector = spec.load(device)

    def call() -> Faces:
        found: list[list[Detection]] = []
        for start in range(0, len(pictures), HELD):
            found += detector.detect_many(pictures[start : start + HELD])
        certain = ([face for face in faces if face.score > THRESHOLD] for faces in found)
        return [_rows([np.concatenate([f.box, f.points.ravel()]) for f in faces]) for faces in certain]

    return call


def _facer(spec: DetectorSpec, device: str, pictures: Sequence[np.ndarray]) -> Callable[[], Faces]:
    """The detector as facer documents it; what it prints goes to stderr."""
    from facer.face_detection.retinaface import RetinaFaceDetector

    benchmark = torch.backends.cudnn.benchmark
    with contextlib.redirect_stdout(sys.stderr):
        detector = RetinaFaceDetector("mobilenet", model_path=str(spec.weights), threshold=THRESHOLD)
    torch.backends.cudnn.benchmark = benchmark  # which it has changed
    detector = detector.to(device)

    @torch.inference_mode()
    def call() -> Faces:
        faces = []
        for picture in pictures:
            found = detector(torch.from_numpy(picture).permute(2, 0, 1)[None].to(device))
            both = torch.cat([found["rects"], found["points"].flatten(1)], 1)
            faces.append(_rows(list(both.cpu().numpy())))
        return faces

    return call


def _rows(faces: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(faces) if len(faces) else np.empty((0, 14), np.float32)


def _largest_difference(ours: Faces, theirs: Faces) -> float:
    """In pixels; infinite where the number of faces differs."""
    if any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        return float("inf")
    return max((float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True) if a.size), default=0.0)

"""Face detection: boxes and five points of every face in a picture, by facer's RetinaFace with local weights.

`leamfast.faces.landmarks` holds dlib's detector, and `leamfast.faces.selection` (its names are here as well)
what detectors return and which face of a picture can be used.

facer supplies the network and the decoding of its outputs. Its weight loader is left aside (it unpickles,
accepts weights that fit only in part, and switches cuDNN to benchmarking), and so is its anchor loop in
Python, which costs as much as the network.

Reference: J. Deng et al., RetinaFace: Single-shot Multi-level Face Localisation in the Wild, CVPR 2020.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leamfast.errors import RequestError
from leamfast.faces.alignment import FaceError, resize_image
from leamfast.faces.selection import (
    FACES,
    MIN_EYE_DISTANCE,
    RETINAFACE_SCORES,
    THRESHOLD,
    Detection,
    Detector,
    Scores,
    check_face,
    check_upright,
    faces_or_candidate,
    find_face,
    one_face,
)

__all__ = [
    "FACES",
    "MAX_SIDE",
    "MIN_EYE_DISTANCE",
    "RETINAFACE_SCORES",
    "THRESHOLD",
    "Detection",
    "Detector",
    "DetectorSpec",
    "FaceError",
    "RetinaFaceDetector",
    "Scores",
    "check_face",
    "check_upright",
    "find_face",
    "one_face",
    "parse_detector",
    "to_original",
    "to_small",
]

MAX_SIDE = 640
"""Longest side at which faces are sought: on larger inputs the network finds boxes that are no faces."""

NMS_OVERLAP = 0.4
CANDIDATES = 5000
MAX_FACES = 750
CHANNEL_MEANS = (104.0, 117.0, 123.0)


@dataclass(frozen=True)
class DetectorSpec:
    """A detector as the user named it: cheap to check, to record and to send to a worker.

    Attributes:
        name: kind of detector, `retinaface` or `dlib`.
        weights: file with its weights; of dlib the predictor of landmarks.
    """

    name: str
    weights: Path

    def load(self, device: torch.device | str = "cpu") -> Detector:
        """The detector itself, on a device; dlib always works on the CPU."""
        if self.name == "dlib":
            from leamfast.faces.landmarks import DlibDetector

            return DlibDetector(self.weights)
        return RetinaFaceDetector(self.weights, device)


class RetinaFaceDetector:
    """RetinaFace with a MobileNet-0.25 body.

    Args:
        weights: file with its state dict, published as `mobilenet0.25_Final.pth`.
        device: where the network runs.

    Raises:
        RequestError: facer is not installed, or the file is missing or holds something else.
    """

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        self._facer = _import_facer()
        self.device = torch.device(device)
        net = self._facer.RetinaFace(cfg=self._facer.cfg_mnet, phase="test")
        _load_weights(net, weights)
        self._net = net.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Faces in a picture, best score first.

        Args:
            image: picture, shape (H, W, 3), uint8, RGB. It is shrunk to a longest side of `MAX_SIDE` where
                it is larger, and never enlarged.

        Returns:
            The faces that score above `THRESHOLD`; where there is none, the best of what scores above 0.5,
            which `one_face` refuses with its score; otherwise an empty list.

        Raises:
            TypeError: image is not uint8.
            ValueError: image has another shape.
        """
        small, scale = to_small(image)
        found = [
            Detection(
                box=to_original(box.reshape(2, 2), scale).reshape(4),
                points=to_original(points, scale),
                score=score,
            )
            for box, points, score in self._detect_small(small)
        ]
        return faces_or_candidate(found)

    def _detect_small(
        self, image: NDArray[np.uint8]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32], float]]:
        height, width = image.shape[:2]
        pixels = torch.tensor(image, device=self.device).permute(2, 0, 1)[None].float()
        pixels -= torch.tensor(CHANNEL_MEANS, device=self.device).view(1, 3, 1, 1)
        boxes, scores, points = self._net(pixels)
        size = torch.tensor([width, height], dtype=torch.float32, device=self.device)
        faces = self._facer.post_process(
            boxes[0],
            scores[0],
            points[0],
            anchors(height, width, self._facer.cfg_mnet).to(self.device),
            self._facer.cfg_mnet,
            scale=size.repeat(2),
            scale1=size.repeat(5),
            resize=1,
            confidence_threshold=RETINAFACE_SCORES.candidate,
            top_k=CANDIDATES,
            nms_threshold=NMS_OVERLAP,
            keep_top_k=MAX_FACES,
        )
        return [(box.cpu().numpy(), points.cpu().numpy(), float(score)) for box, points, score in faces]


def parse_detector(text: str) -> DetectorSpec:
    """Read a detector as written on the command line: `retinaface=FILE`, `dlib` or `dlib=FILE`.

    Raises:
        RequestError: another detector, or no file, or a file that does not exist; or `dlib` alone, and the
            package with its predictor is not installed.
    """
    name, equals, file = text.partition("=")
    if name not in ("retinaface", "dlib") or (not file and (equals or name != "dlib")):
        raise RequestError(
            "detector must be retinaface=FILE, with FILE its weights, or dlib, or dlib=FILE, with FILE its "
            f"predictor of 68 landmarks, got {text!r}"
        )
    if name == "dlib" and not file:
        from leamfast.faces.landmarks import installed_predictor

        return DetectorSpec(name, installed_predictor())
    weights = Path(file).expanduser()
    if not weights.is_file():
        raise RequestError(f"detector must name a file of weights, got {text!r}: there is no file {file}")
    return DetectorSpec(name, weights)


def anchors(height: int, width: int, config: dict) -> Tensor:
    """Anchor boxes of an input, shape (A, 4): centre x, y and sides, as fractions of the input's sides.

    The same float32 values in the same order as facer's `PriorBox(config, (height, width))`.
    """
    levels = []
    for step, sides in zip(config["steps"], config["min_sizes"], strict=True):
        y = (np.arange(-(-height // step)) + 0.5) * step / height
        x = (np.arange(-(-width // step)) + 0.5) * step / width
        level = np.empty((len(y), len(x), len(sides), 4))
        level[..., 0] = x[None, :, None]
        level[..., 1] = y[:, None, None]
        level[..., 2] = np.array(sides) / width
        level[..., 3] = np.array(sides) / height
        levels.append(level.reshape(-1, 4))
    return torch.from_numpy(np.concatenate(levels).astype(np.float32))


def to_small(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A picture as it is searched: shrunk to a longest side of `MAX_SIDE` where it is larger.

    Returns:
        The small picture, and the width and height of its pixels in pixels of the original, shape (2,).

    Raises:
        TypeError: image is not uint8.
        ValueError: image has another shape than (H, W, 3).
    """
    if image.dtype != np.uint8:
        raise TypeError(f"image must be uint8, got {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must have shape (H, W, 3), got {image.shape}")
    height, width = image.shape[:2]
    shrink = min(1.0, MAX_SIDE / max(height, width))
    small = resize_image(image, max(1, round(width * shrink)), max(1, round(height * shrink)))
    return np.ascontiguousarray(small), np.array([width / small.shape[1], height / small.shape[0]])


def to_original(points: NDArray, scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """Coordinates (N, 2) in the shrunk picture to those in the original: pixel centres are at integers."""
    return ((points.astype(np.float64) + 0.5) * scale - 0.5).astype(np.float32)


def _import_facer() -> ModuleType:
    """The RetinaFace module of facer, imported at first use: it brings timm, torchvision and matplotlib."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Importing from timm.models.layers is deprecated", FutureWarning, r"timm\."
            )
            from facer.face_detection import retinaface
    except ImportError as exc:
        raise RequestError(
            f"detector retinaface needs the package pyfacer, which cannot be imported ({exc}): "
            "install it with `pip install pyfacer timm`"
        ) from exc
    return retinaface


def _load_weights(net: torch.nn.Module, file: Path) -> None:
    """Fill a network from a file that holds its state dict and nothing executable."""
    wrong = f"detector weights must be the state dict of RetinaFace, mobilenet0.25_Final.pth, got {file}"
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as exc:
        raise RequestError(f"{wrong}: {(exc.strerror or 'it cannot be read').lower()}") from exc
    except Exception as exc:
        # torch.load raises nearly anything on a file that is no checkpoint.
        raise RequestError(f"{wrong}: it is no PyTorch checkpoint of plain tensors") from exc
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise RequestError(f"{wrong}: it holds no state dict")
    try:
        net.load_state_dict({str(name).removeprefix("module."): value for name, value in state.items()})
    except RuntimeError as exc:
        raise RequestError(f"{wrong}: its tensors are those of another network") from exc

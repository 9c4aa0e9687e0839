"""Face detection: boxes and five points of every face in a picture, by facer's RetinaFace with local weights.

facer supplies the network and the decoding of its outputs. Its weight loader is left aside (it unpickles,
accepts weights that fit only in part, and switches cuDNN to benchmarking), and so is its anchor loop in
Python, which costs as much as the network.

Reference: J. Deng et al., RetinaFace: Single-shot Multi-level Face Localisation in the Wild, CVPR 2020.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leamfast.errors import RequestError
from leamfast.faces.alignment import FaceError, resize_image

__all__ = [
    "MAX_SIDE",
    "THRESHOLD",
    "Detection",
    "DetectorSpec",
    "FaceError",
    "RetinaFaceDetector",
    "one_face",
    "parse_detector",
]

MAX_SIDE = 640
"""Longest side at which faces are sought: on larger inputs the network finds boxes that are no faces."""

THRESHOLD = 0.8
"""Score that a face must exceed."""

NMS_OVERLAP = 0.4
CANDIDATES = 5000
FACES = 750
CHANNEL_MEANS = (104.0, 117.0, 123.0)


@dataclass(frozen=True)
class Detection:
    """One face; coordinates are those of the picture as given, with pixel centres at integers.

    Attributes:
        box: left, top, right, bottom, shape (4,), float32; may reach beyond the picture.
        points: image-left eye, image-right eye, nose, image-left and image-right mouth corner,
            shape (5, 2) as (x, y), float32. (On a face that is upside down they are not to be trusted.)
        score: confidence, `THRESHOLD`..1.
    """

    box: NDArray[np.float32]
    points: NDArray[np.float32]
    score: float


@dataclass(frozen=True)
class DetectorSpec:
    """A detector as the user named it: cheap to check, to record and to send to a worker.

    Attributes:
        name: kind of detector, `retinaface`.
        weights: file with its weights.
    """

    name: str
    weights: Path

    def load(self, device: torch.device | str = "cpu") -> "RetinaFaceDetector":
        """The detector itself, on a device."""
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
            The faces that score above `THRESHOLD`; none is an empty list.

        Raises:
            TypeError: image is not uint8.
            ValueError: image has another shape.
        """
        if image.dtype != np.uint8:
            raise TypeError(f"image must be uint8, got {image.dtype}")
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image must have shape (H, W, 3), got {image.shape}")
        height, width = image.shape[:2]
        shrink = min(1.0, MAX_SIDE / max(height, width))
        small = resize_image(image, max(1, round(width * shrink)), max(1, round(height * shrink)))
        found = self._detect_small(small)
        scale = np.array([width / small.shape[1], height / small.shape[0]])
        return [
            Detection(
                box=_to_original(box.reshape(2, 2), scale).reshape(4),
                points=_to_original(points, scale),
                score=score,
            )
            for box, points, score in found
        ]

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
            confidence_threshold=THRESHOLD,
            top_k=CANDIDATES,
            nms_threshold=NMS_OVERLAP,
            keep_top_k=FACES,
        )
        return [(box.cpu().numpy(), points.cpu().numpy(), float(score)) for box, points, score in faces]


def parse_detector(text: str) -> DetectorSpec:
    """Read a detector as written on the command line, `retinaface=FILE`.

    Raises:
        RequestError: another detector, or no file, or a file that does not exist.
    """
    name, _, file = text.partition("=")
    if name != "retinaface" or not file:
        raise RequestError(f"detector must be retinaface=FILE, with FILE its weights, got {text!r}")
    weights = Path(file).expanduser()
    if not weights.is_file():
        raise RequestError(f"detector must name a file of weights, got {text!r}: there is no file {file}")
    return DetectorSpec(name, weights)


def one_face(detections: Sequence[Detection]) -> Detection:
    """The face of a picture that holds exactly one.

    Raises:
        FaceError: there is none, or more than one.
    """
    if not detections:
        raise FaceError("no face found")
    if len(detections) > 1:
        raise FaceError(f"{len(detections)} faces found, exactly one is needed")
    return detections[0]


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


def _to_original(points: NDArray[np.float32], scale: NDArray[np.float64]) -> NDArray[np.float32]:
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

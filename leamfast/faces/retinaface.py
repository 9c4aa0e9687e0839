"""RetinaFace: boxes and five points of every face in a picture, by facer's network with local weights.

facer supplies the network. Its weight loader is left aside (it unpickles, accepts weights that fit only in
part, and switches cuDNN to benchmarking), and so are its anchor loop in Python, which costs as much as the
network, and its decoding, which asks the device once for every face.

Reference: J. Deng et al., RetinaFace: Single-shot Multi-level Face Localisation in the Wild, CVPR 2020.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import BatchNorm2d, Conv2d, Identity
from torch.nn.utils.fusion import fuse_conv_bn_eval

from leamfast.errors import RequestError
from leamfast.faces.detection import to_original, to_small
from leamfast.faces.selection import RETINAFACE_SCORES, Detection, faces_or_candidate
from leamfast.models.downloads import WEB_PAGE, is_web_page

__all__ = ["RetinaFaceDetector", "anchors"]

NMS_OVERLAP = 0.4
CANDIDATES = 5000
MAX_FACES = 750
CHANNEL_MEANS = (104.0, 117.0, 123.0)
GPU_BATCH = 8

Found = tuple[NDArray[np.float32], NDArray[np.float32], float]


class RetinaFaceDetector:
    """RetinaFace with a MobileNet-0.25 body.

    Its batch normalisations are folded into its convolutions. On a CPU it computes one picture at a time, and
    elsewhere `GPU_BATCH`, filled up where there are fewer: the low bits of a convolution depend on the size
    of the batch, and no face may depend on what else is searched. (On a CPU batches save nothing either.)

    Args:
        weights: file with its state dict, published as `mobilenet0.25_Final.pth`.
        device: where the network runs.

    Raises:
        RequestError: facer is not installed, or the file is missing or holds something else.
    """

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        facer = _import_facer()
        self.device = torch.device(device)
        net = facer.RetinaFace(cfg=facer.cfg_mnet, phase="test")
        _load_weights(net, weights)
        self._net = _folded(net.eval()).requires_grad_(False).to(self.device)
        self._config = facer.cfg_mnet

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
        return self.detect_many([image])[0]

    @torch.inference_mode()
    def detect_many(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Faces in each of several pictures: bit for bit what `detect` finds in each.

        Pictures that have one shape when they are shrunk go through the network together; none is padded,
        which would move boxes.
        """
        small = [to_small(image) for image in images]
        shapes: dict[tuple[int, ...], list[int]] = {}
        for number, (pixels, _) in enumerate(small):
            shapes.setdefault(pixels.shape, []).append(number)
        found: list[list[Detection]] = [[] for _ in images]
        batch = 1 if self.device.type == "cpu" else GPU_BATCH
        for numbers in shapes.values():
            for start in range(0, len(numbers), batch):
                chosen = numbers[start : start + batch]
                faces = self._detect_small([small[number][0] for number in chosen])
                for number, rows in zip(chosen, faces, strict=True):
                    scale = small[number][1]
                    found[number] = [
                        Detection(
                            box=to_original(box.reshape(2, 2), scale).reshape(4),
                            points=to_original(points, scale),
                            score=score,
                        )
                        for box, points, score in rows
                    ]
        return [faces_or_candidate(faces) for faces in found]

    def _detect_small(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Found]]:
        """Faces in pictures of one shape, at most a batch: box (4,), points (5, 2) and score, best first."""
        height, width = images[0].shape[:2]
        filled = images if self.device.type == "cpu" else [*images, *[images[0]] * (GPU_BATCH - len(images))]
        pixels = torch.from_numpy(np.stack(filled)).to(self.device).permute(0, 3, 1, 2).float()
        pixels -= torch.tensor(CHANNEL_MEANS, device=self.device).view(1, 3, 1, 1)
        boxes, scores, points = (output[: len(images)] for output in self._net(pixels))
        priors = anchors(height, width, self._config).to(self.device)
        # All candidates of all pictures come to the host in one array.
        picture, anchor = torch.nonzero(scores[..., 1] > RETINAFACE_SCORES.candidate, as_tuple=True)
        box, point = _decode(boxes[picture, anchor], points[picture, anchor], priors[anchor], self._config)
        size = torch.tensor([width, height], dtype=torch.float32, device=self.device)
        columns = [
            picture[:, None],
            scores[picture, anchor, 1:],
            box * size.repeat(2),
            point * size.repeat(5),
        ]
        rows = torch.cat([column.float() for column in columns], 1).cpu().numpy()
        return [_without_overlaps(rows[rows[:, 0] == number, 1:]) for number in range(len(images))]


def anchors(height: int, width: int, config: dict) -> Tensor:
    """Anchor boxes of an input, shape (A, 4): centre x, y and sides, as fractions of the input's sides.

    The same float32 values in the same order as facer's `PriorBox(config, (height, width))`. They are kept
    for the shapes seen last: not to be written to.
    """
    return _anchors(height, width, tuple(config["steps"]), tuple(map(tuple, config["min_sizes"])))


@lru_cache(maxsize=64)
def _anchors(height: int, width: int, steps: tuple[int, ...], sizes: tuple[tuple[int, ...], ...]) -> Tensor:
    levels = []
    for step, sides in zip(steps, sizes, strict=True):
        y = (np.arange(-(-height // step)) + 0.5) * step / height
        x = (np.arange(-(-width // step)) + 0.5) * step / width
        level = np.empty((len(y), len(x), len(sides), 4))
        level[..., 0] = x[None, :, None]
        level[..., 1] = y[:, None, None]
        level[..., 2] = np.array(sides) / width
        level[..., 3] = np.array(sides) / height
        levels.append(level.reshape(-1, 4))
    return torch.from_numpy(np.concatenate(levels).astype(np.float32))


def _decode(boxes: Tensor, points: Tensor, priors: Tensor, config: dict) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) as left, top, right, bottom and points (N, 10) of anchors, as fractions of the sides.

    The arithmetic of facer's `decode` and `decode_landm`, in the same order.
    """
    centre, side = priors[:, :2], priors[:, 2:]
    near, far = config["variance"]
    corner = centre + boxes[:, :2] * near * side
    extent = side * torch.exp(boxes[:, 2:] * far)
    corner = corner - extent / 2
    decoded = centre.repeat(1, 5) + points * near * side.repeat(1, 5)
    return torch.cat([corner, extent + corner], 1), decoded


def _without_overlaps(rows: NDArray[np.float32]) -> list[Found]:
    """Candidates (N, 15) of a picture, score, box and points, without those that overlap a better one.

    As facer's `post_process`, whose boxes count their right and bottom pixels.
    """
    rows = rows[np.argsort(-rows[:, 0], kind="stable")][:CANDIDATES]
    box = rows[:, 1:5]
    areas = (box[:, 2] - box[:, 0] + 1) * (box[:, 3] - box[:, 1] + 1)
    left = np.arange(len(rows))
    found: list[Found] = []
    while len(left) and len(found) < MAX_FACES:
        best, rest = left[0], left[1:]
        found.append((box[best].copy(), rows[best, 5:].reshape(5, 2).copy(), float(rows[best, 0])))
        corner = np.maximum(box[best, :2], box[rest, :2])
        extent = np.maximum(np.minimum(box[best, 2:], box[rest, 2:]) - corner + 1, 0)
        common = extent[:, 0] * extent[:, 1]
        left = rest[common / (areas[best] + areas[rest] - common) <= NMS_OVERLAP]
    return found


def _folded(net: torch.nn.Module) -> torch.nn.Module:
    """The network with each batch normalisation folded into the convolution before it; for inference only."""
    for block in net.modules():
        if isinstance(block, torch.nn.Sequential):
            for number in range(len(block) - 1):
                convolution, norm = block[number], block[number + 1]
                if isinstance(convolution, Conv2d) and isinstance(norm, BatchNorm2d):
                    block[number], block[number + 1] = fuse_conv_bn_eval(convolution, norm), Identity()
    return net


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
        what = WEB_PAGE if is_web_page(file) else "it is no PyTorch checkpoint of plain tensors"
        raise RequestError(f"{wrong}: {what}") from exc
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise RequestError(f"{wrong}: it holds no state dict")
    try:
        net.load_state_dict({str(name).removeprefix("module."): value for name, value in state.items()})
    except RuntimeError as exc:
        raise RequestError(f"{wrong}: its tensors are those of another network") from exc
